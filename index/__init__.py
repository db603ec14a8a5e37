"""Everything a bundle needs once it is trained: features, towers, label index, changes. No torch here."""

from index.collection import Collection
from index.errors import BundleError, InputError, LabelspaceError, UnknownLabelError

__all__ = ["BundleError", "Collection", "InputError", "LabelspaceError", "UnknownLabelError"]
