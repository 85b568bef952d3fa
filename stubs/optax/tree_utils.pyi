"""What the type checker knows of optax.tree_utils: what this package uses."""

from typing import Any

def tree_get(tree: Any, key: str, default: Any = None) -> Any: ...
