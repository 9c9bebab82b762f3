"""Follows every link of a site, and reports each page as a case in JUnit XML: a test without any framework."""

import argparse
import pathlib
import re
import sys
import urllib.error
import urllib.request
import xml.etree.ElementTree as ET


def crawl(site):
    """The pages by path, each with what is wrong with it."""
    seen, waiting = {}, ["/"]
    while waiting:
        path = waiting.pop()
        try:
            with urllib.request.urlopen(site + path, timeout=10) as answer:
                seen[path], text = "", answer.read().decode()
        except urllib.error.URLError as error:
            seen[path], text = str(error), ""
        links = re.findall(r"href=['\"](/[^'\"]*)", text)
        waiting += [link for link in dict.fromkeys(links) if link not in seen and link not in waiting]
    return seen


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("site")
    parser.add_argument("--junit", type=pathlib.Path, required=True)
    options = parser.parse_args()
    pages = crawl(options.site)
    suite = ET.Element("testsuite", name="links", tests=str(len(pages)))
    for path, problem in pages.items():
        case = ET.SubElement(suite, "testcase", classname="links", name=path)
        if problem:
            ET.SubElement(case, "failure", message=problem)
    options.junit.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(suite).write(options.junit)
    sys.exit(any(pages.values()))


if __name__ == "__main__":
    main()
