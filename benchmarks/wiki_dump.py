"""A made-up MediaWiki export: valid XML, and all that real wikitext brings with it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">
  <siteinfo><sitename>Made up</sitename><dbname>testwiki</dbname><case>first-letter</case>
    <namespaces><namespace key="0" case="first-letter" /><namespace key="1" case="first-letter">Talk</namespace></namespaces>
  </siteinfo>
"""
WORDS = ("copper", "sulfate", "lens", "focal", "length", "mirror", "voltage", "current", "flame", "salt", "water", "soil",
         "bacteria", "gel", "band", "mass")


def page(number: int, title: str, text: str, namespace: int = 0, redirect: str = "") -> str:
    """One page element."""
    target = f'<redirect title="{escape(redirect)}" />' if redirect else ""
    return (f"  <page><title>{escape(title)}</title><ns>{namespace}</ns><id>{number}</id>{target}<revision><id>{number + 10 ** 6}"
            f"</id><timestamp>2026-01-01T00:00:00Z</timestamp><model>wikitext</model><format>text/x-wiki</format>"
            f'<text bytes="{len(text.encode())}" xml:space="preserve">{escape(text)}</text></revision></page>\n')


def article(number: int, sentences: int = 40) -> str:
    """Wikitext with nested templates, a table, references, pictures, links, a list, and a section in Chinese."""
    rng = random.Random(number)
    def prose(count: int) -> str:
        return " ".join(f"The [[{rng.choice(WORDS)}|{rng.choice(WORDS)}]] of ''{rng.choice(WORDS)}'' {number} meets "
                        f"{' '.join(rng.choices(WORDS, k=8))}.<ref name=\"r{i}\">Cited {i}.</ref>" for i in range(count))
    return f"""{{{{Infobox experiment|name={{{{nowrap|{{{{lang|en|Article {number}}}}}}}}}|mass={rng.random():.3f}}}}}
'''Article {number}''' is about {prose(sentences // 2)}
[[File:picture{number}.jpg|thumb|A [[picture]] of it]]
<!-- a remark that nobody sees -->
== Method ==
{{| class="wikitable" border="1"
! salt !! colour
|-
| copper || {{{{color|green}}}}
|}}
{prose(sentences // 2)}
* first [[item]]
* second item &nbsp;here
== 中文 ==
第{number}篇文章讲的是铜盐的焰色。火焰呈绿色，因为电子跃迁时放出光。
== References ==
{{{{reflist}}}} This list is no prose and long enough to be taken for some of it.
[[Category:Experiments]]"""


def pages(count: int, sentences: int = 40) -> Iterator[str]:
    """Articles; every tenth is followed by a redirect and a talk page, every twentieth by a copy of itself."""
    for number in range(1, count + 1):
        yield page(number, f"Article {number}", article(number, sentences))
        if number % 10 == 0:
            yield page(10 ** 7 + number, f"Old name {number}", f"#REDIRECT [[Article {number}]]", redirect=f"Article {number}")
            yield page(10 ** 8 + number, f"Talk:Article {number}", "They talk about it, and nobody should read it.", 1)
        if number % 20 == 0:
            yield page(10 ** 9 + number, f"Copy of {number}", article(number, sentences))


def write_dump(path: Path, count: int, sentences: int = 40) -> Path:
    """A whole export of `count` articles."""
    with open(path, "w", encoding="utf8") as file:
        file.write(HEAD)
        file.writelines(pages(count, sentences))
        file.write("</mediawiki>\n")
    return path
