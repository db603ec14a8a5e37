"""The addresses of the service, one module for each thing that it is asked for."""
