"The package index shows README.md without the repository around it: there, its links and pictures are absolute."

import re
from pathlib import Path

from setuptools import setup

HOME = "https://github.com/ctm-wsss/ctm"
text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
text = re.sub(r"!(\[[^]]*\])\((?!\w+:)", rf"!\1({HOME}/raw/main/", text)
text = re.sub(r"(?<!!)(\[[^]]*\])\((?!\w+:|#)", rf"\1({HOME}/blob/main/", text)
setup(long_description=text, long_description_content_type="text/markdown")
