"Sphinx's settings. build.py hands it a folder of MyST notebooks."

import sys
from pathlib import Path

from nbdev.config import get_config

cfg = get_config(path=Path(__file__).parent)
sys.path.insert(0, str(Path(__file__).parent))  # for head.py
project = cfg.title
version = release = cfg.version
html_title = f"{cfg.title} {cfg.version}"
html_baseurl = f"{cfg.doc_host}{cfg.doc_baseurl}/"
author = copyright = cfg.author

extensions = ["myst_nb", "sphinx_copybutton", "head"]
nb_execution_mode = "off"  # the site shows saved outputs
nb_render_markdown_format = "myst"
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # nbdev puts names at level 3, wherever they stand
numfig = True
copybutton_selector = "div.highlight pre"
mathjax_path = "tex-svg.js"  # in _static: no network

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["custom.css"]
html_js_files = [("search.js", {"defer": "defer"}), ("tables.js", {"defer": "defer"})]
html_show_sourcelink = html_copy_source = False
html_context = {"default_mode": "auto"}  # light or dark as the reader's system is
html_theme_options = {
    "repository_url": cfg.git_url,
    "use_repository_button": True,
    "home_page_in_toc": True,
    "show_toc_level": 2,
    "use_download_button": False,
    "navbar_persistent": [],
    "footer_content_items": ["copyright"],
}
