"""The code on the pages of the documentation, and in the README, runs and gives what they say."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"

spec = importlib.util.spec_from_file_location("blocks", DOCS / "blocks.py")
docs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(docs)

WITH_CODE = [page for page in docs.pages() if docs.blocks(page.read_text())]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_the_code_of_a_page_does_what_it_says(page):
    done = docs.check(page)
    assert done.returncode == 0, done.stdout + done.stderr
    # What a thread raises ends no program: it is printed.
    assert "Traceback" not in done.stderr


def test_the_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)", (DOCS.parent / "README.md").read_text())
    assert links
    for link in links:
        assert (DOCS.parent / link).exists(), link


def test_code_that_fails_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\n```pycon\n>>> x\n2\n```\n")
    done = docs.check(page)
    assert done.returncode == 1
    assert "Expected:" in done.stdout
    page.write_text("```python\nx = y\n```\n")
    done = docs.check(page)
    assert done.returncode == 1
    assert 'page.md", line 2' in done.stderr


def test_a_block_of_an_unknown_language_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a block of 'py'"):
        docs.blocks("```py\nx = 1\n```\n")
