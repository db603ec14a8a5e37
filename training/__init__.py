"""From a corpus to a bundle: reading, training, exporting, evaluating. Only what trains a model imports torch."""
