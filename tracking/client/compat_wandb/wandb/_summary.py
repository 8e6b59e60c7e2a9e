"""`wandb.summary`: one value for each metric, the last one unless the script says otherwise."""

from ._plain import Items

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Mapping


class Summary(Items):
    """Read and written by attribute or by item; nested mappings are summaries themselves."""

    _on_change: "Callable[[dict[str, Any]], None]"

    def __init__(self, items: "dict[str, Any]", on_change: "Callable[[dict[str, Any]], None]") -> None:
        object.__setattr__(self, "_items", items)
        object.__setattr__(self, "_on_change", on_change)

    def get(self, key: str, default: "Any" = None) -> "Any":
        """A value, or the default."""
        return self[key] if key in self._items else default

    def update(self, d: "Mapping[str, Any]") -> None:
        """Set several values by hand."""
        values = {str(key): value for key, value in d.items()}
        self._items.update(values)
        self._on_change(values)

    def __getitem__(self, key: str) -> "Any":
        value = self._items[key]
        if not isinstance(value, dict):
            return value
        return Summary(value, lambda values: self._on_change({key: values}))

    def __setitem__(self, key: str, value: "Any") -> None:
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        del self._items[key]

    def __getattr__(self, key: str) -> "Any":
        if key.startswith("__"):
            raise AttributeError(key)
        try:
            return self[key]
        except KeyError:
            raise AttributeError(f"wandb.summary has no '{key}': nothing of that name was logged") from None

    __setattr__ = __setitem__
    __delattr__ = __delitem__

    def __contains__(self, key: str) -> bool:
        return key in self._items
