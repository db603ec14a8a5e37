"""The command `labelspace`. Each verb imports its stage only when it is called."""
