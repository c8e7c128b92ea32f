"""A page of the documentation site, as far as the tests read it."""

import re
from html.parser import HTMLParser

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
CONTENT = {"img", "math", "svg", "table"}
SECTION_OF_A_DOCSTRING = 7  # one level below h6


class Page(HTMLParser):
    """What the tests ask of a page.

    Attributes:
        ids: the anchors.
        links: where its links lead.
        files: what the browser fetches to show the page.
        signatures: of each documented object, by its anchor.
        empty_sections: headings that nothing follows.
        text: the article's prose, with ``code`` for each piece of code.
    """

    def __init__(self, html):
        super().__init__()
        self.ids, self.links, self.files, self.signatures, self.empty_sections = set(), [], [], {}, []
        self.text = ""
        self._open, self._section, self._anchor = [], None, ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = {name: value or "" for name, value in attributes}
        classes = found.get("class", "").split()
        if "id" in found:
            self.ids.add(found["id"])
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif "href" in found and found.get("rel") not in ("canonical", "next", "prev"):
            self.files.append(found["href"])
        self.files += [found[name] for name in ("src", "data", "poster") if name in found]
        role = tag
        if self._within("article"):
            if re.fullmatch("h[1-6]", tag) or "doc-section-title" in classes:
                self._start_section(int(tag[1]) if tag[0] == "h" else SECTION_OF_A_DOCSTRING)
                self._anchor = found.get("id", self._anchor)
                role = "heading"
            elif "doc-signature" in classes:
                role = "signature"
            elif tag in CONTENT and self._section:
                self._section["empty"] = False
            elif tag == "code" and not self._within("pre"):
                self.text += "code"
        if tag not in VOID:
            self._open.append((tag, role))

    def handle_endtag(self, tag):
        if tag == "article":
            self._end_section(0)
        if tag in (name for name, _ in self._open):
            while self._open.pop()[0] != tag:  # elements that HTML lets stay open, such as <p> and <li>
                pass

    def handle_data(self, data):
        if self._within("signature"):
            self.signatures[self._anchor] = self.signatures.get(self._anchor, "") + data
        elif self._within("heading"):
            self._section["title"] += data
        elif self._within("article") and not self._within("script", "style"):
            if self._section and data.strip():
                self._section["empty"] = False
            if not self._within("code", "pre", "math"):
                self.text += data

    def _within(self, *names):
        return any(role in names for _, role in self._open)

    def _start_section(self, level):
        self._end_section(level)
        self._section = {"level": level, "title": "", "empty": True}

    def _end_section(self, level):
        if self._section and self._section["empty"] and level <= self._section["level"]:
            self.empty_sections.append(self._section["title"].strip())
        self._section = None
