"""Reads a page of the documentation site for the tests."""

import re
from html.parser import HTMLParser

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
CONTENT = {"img", "math", "svg", "table"}
SECTION_OF_A_DOCSTRING = 7  # one level below h6
SAYS_NOTHING = re.compile(r"(none|nothing|no settings|not applicable|n/a|-)?\.?", re.IGNORECASE)


class Page(HTMLParser):
    """What the tests check of a page.

    Attributes:
        ids: anchors.
        links: targets of the links.
        files: what the browser fetches to show the page.
        signatures: signature of each documented object, by its anchor.
        title: text of the first h1.
        first_paragraph: text of the first paragraph of the article.
        empty_sections: headings of sections without content, or with "None." alone.
        text: prose of the article, with ``code`` in place of each piece of code.
        equations: text of all equations.
        footer: text of the footer.
    """

    def __init__(self, html):
        super().__init__()
        self.ids, self.links, self.files, self.signatures, self.empty_sections = set(), [], [], {}, []
        self.text = self.title = self.first_paragraph = self.equations = self.footer = ""
        self._open, self._section, self._anchor, self._paragraphs, self._titles = [], None, "", 0, 0
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
            self._paragraphs += tag == "p"
            self._titles += tag == "h1"
            if re.fullmatch("h[1-6]", tag) or "doc-section-title" in classes:
                self._start_section(int(tag[1]) if tag[0] == "h" else SECTION_OF_A_DOCSTRING)
                self._anchor = found.get("id", self._anchor)
                role = "heading"
            elif "doc-signature" in classes:
                role = "signature"
            elif "headerlink" in classes:
                role = "link of a heading"
            elif tag in CONTENT and self._section:
                self._section["figures"] = True
            elif tag == "code" and not self._within("pre"):
                self.text += "code"
        if tag not in VOID:
            self._open.append((tag, role))

    def handle_endtag(self, tag):
        if tag == "article":
            self._end_section(0)
        if tag in (name for name, _ in self._open):
            while self._open.pop()[0] != tag:  # elements that HTML allows to stay open, such as <p> and <li>
                pass

    def handle_data(self, data):
        if self._within("footer"):
            self.footer += data
        if self._within("math"):
            self.equations += data
        if self._within("signature"):
            self.signatures[self._anchor] = self.signatures.get(self._anchor, "") + data
        elif self._within("heading"):
            self._section["title"] += data
            if self._titles == 1 and self._within("h1") and not self._within("link of a heading"):
                self.title += data
        elif self._within("article") and not self._within("script", "style"):
            if self._paragraphs == 1 and self._within("p"):
                self.first_paragraph += data
            if self._section:
                self._section["text"] += data
            if not self._within("code", "pre", "math"):
                self.text += data

    def _within(self, *names):
        return any(name in names or role in names for name, role in self._open)

    def _start_section(self, level):
        self._end_section(level)
        self._section = {"level": level, "title": "", "text": "", "figures": False}

    def _end_section(self, level):
        section, self._section = self._section, None
        if section is None or level > section["level"] or section["figures"]:  # a subsection is content too
            return
        if SAYS_NOTHING.fullmatch(section["text"].strip()):
            self.empty_sections.append(section["title"].strip())
