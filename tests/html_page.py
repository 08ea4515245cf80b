"""A page as its reader's browser takes it apart."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Collects a page's tags, attributes and text; insists that every tag is closed.

    Attributes:
        source: the page.
        tags: names of its tags, in order.
        text: all text, unescaped.
    """

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = source
        self.tags: list[str] = []
        self.text = ""
        self._attributes: list[tuple[str, str, str]] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keeps a tag and its attributes."""
        self.tags.append(tag)
        self._attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Insists on the order of closing; a space keeps cells apart."""
        assert self._open.pop() == tag
        self.text += " "

    def handle_data(self, data: str) -> None:
        """Keeps the text."""
        self.text += data

    def values(self, tag: str, name: str) -> list[str]:
        """Returns the values of one attribute of all tags of a kind."""
        return [v for t, n, v in self._attributes if (t, n) == (tag, name)]
