// After Sphinx's searchtools.js: pages that are read come before modules, and excerpts are sentences, not code.
"use strict";
if (typeof Search !== "undefined") {
  Scorer.score = ([docname, , anchor, , score, , kind]) => {
    const named = kind === SearchResultKind.title && !anchor ? 12 : 0; // the page's own title
    if (/^(tutorials|guides)\//.test(docname)) return score + named + 6;
    return score + named + (docname.includes("/") ? 0 : 3);
  };

  const apart = ".cell, table, figure, nav, .toctree-wrapper, .admonition-title, a.colab";

  Search.makeSearchSummary = (html, keywords, anchor) => {
    const main = new DOMParser().parseFromString(html, "text/html").querySelector('[role="main"]');
    const scope = (anchor && main?.querySelector(anchor)) || main;
    if (!scope) return null;
    const texts = [...scope.querySelectorAll("p, li, dd")]
      .filter((part) => !part.closest(apart) && !part.querySelector(`p, ${apart}`))
      .map((part) => part.textContent.replace(/\s+/g, " ").trim())
      .filter((text) => text.split(" ").length > 3);
    const places = (text) => [...keywords].map((word) => text.toLowerCase().indexOf(word.toLowerCase()));
    const text = texts.find((one) => Math.max(...places(one)) > -1) ?? texts[0];
    if (!text) return null;
    const place = Math.max(0, ...places(text));
    const sentence = text.lastIndexOf(". ", place) + 1;
    const start = place - sentence > 160 ? text.indexOf(" ", place - 120) : sentence;
    const summary = document.createElement("p");
    summary.classList.add("context");
    summary.textContent =
      (start > sentence ? "…" : "") + text.slice(start, start + 240).trim() + (start + 240 < text.length ? "…" : "");
    return summary;
  };
}
