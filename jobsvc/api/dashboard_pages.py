"""rq-dashboard's pages, made safe as they are loaded: inserted values are escaped, and no other script runs.

rq-dashboard 0.9.0 inserts much of its data unescaped into HTML (Parallels/rq-dashboard#526), and compiles its row
templates in the browser, which requires `eval`. Here the row templates are turned into functions that escape every
value, when a page is loaded from the package. So the Content-Security-Policy needs neither `unsafe-eval` nor
`unsafe-inline` for scripts: only script elements with the nonce of the response run.

If rq-dashboard lacks a text that is replaced here, a RuntimeError is raised, so that no unsafe page is shown.
"""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from secrets import token_urlsafe

import rq_dashboard
from flask import Flask, Response, g
from jinja2 import BaseLoader, Environment, TemplateNotFound

PACKAGE = Path(rq_dashboard.__file__).parent / "templates"

_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_ROW_TEMPLATE = re.compile(r'(<script name="([a-z-]+)" type="text/template">)(.*?)(</script>)', re.DOTALL)
_PART = re.compile(r"<%([-=]?)(.*?)%>", re.DOTALL)

# Replaces underscore.js, of which the pages use only `template`: takes the name that replaced the text of a row
# template, and returns the function made from it. Also shows errors of buttons, which rq-dashboard ignores.
_SCRIPT = """
var ROWS = {};
var _ = {template: function(name) { return ROWS[name.trim()]; }};
var escapeText = function(value) {
    return value === null || value === undefined ? '' : String(value).replace(/[&<>"'`]/g, function(character) {
        return '&#' + character.charCodeAt(0) + ';';
    });
};
$(document).ajaxError(function(event, reply, request) {
    if (request.type !== 'POST') { return; }
    var problem = reply.responseJSON || {};
    $('<div class="alert alert-danger" role="alert" data-role="refusal">')
        .text(problem.detail || 'The service does not answer (' + reply.status + ').')
        .prependTo('.container').delay(15000).fadeOut();
});
"""


def init_app(app: Flask) -> None:
    """Load the dashboard's templates through this module, and add the policy to its pages."""
    rq_dashboard.blueprint.jinja_loader = _Loader()
    app.jinja_env.globals["script_nonce"] = _nonce
    app.after_request(_restrict)


def _nonce() -> str:
    """Return the nonce for the response to this request."""
    if "script_nonce" not in g:
        g.script_nonce = token_urlsafe(18)
    return str(g.script_nonce)


def _restrict(response: Response) -> Response:
    if "script_nonce" in g:
        response.headers["Content-Security-Policy"] = _POLICY.format(nonce=g.script_nonce)
    return response


class _Loader(BaseLoader):
    """Loads rq-dashboard's templates from its package, made safe by `safe_source`."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        path = PACKAGE / template
        if not template.startswith("rq_dashboard/") or ".." in template or not path.is_file():
            raise TemplateNotFound(template)
        return safe_source(template, path.read_text("utf-8")), str(path), lambda: True


def safe_source(template: str, source: str) -> str:
    """Return the safe source of an rq-dashboard template. Raises RuntimeError if it isn't as expected."""
    for old, new in _CHANGES.get(template.removeprefix("rq_dashboard/"), ()):
        source, count = re.subn(old, partial(_fill, new), source, flags=re.DOTALL)
        if count == 0:
            raise RuntimeError(f"rq-dashboard's {template} is another one than jobsvc knows: it has no {old}")
    if not template.endswith(".html"):
        return source
    functions: list[str] = []

    def name_alone(found: re.Match[str]) -> str:
        opening, name, text, closing = found.groups()
        if "<%" not in text:
            return found[0]
        functions.append(f"ROWS[{json.dumps(name)}] = {row_function(text)};\n")
        return f"{opening}{name}{closing}"

    source = _ROW_TEMPLATE.sub(name_alone, source)
    if "<%" in source:
        raise RuntimeError(f"rq-dashboard's {template} is another one than jobsvc knows: a row's template is left")
    start = "{% block content_scripts %}"
    return source.replace(start, start + "\n" + "".join(functions)) if functions else source


def _fill(new: str, found: re.Match[str]) -> str:
    return new.replace(r"\1", found[1]) if found.re.groups else new


def row_function(text: str) -> str:
    """Return a JavaScript function that builds a row's HTML; it escapes what `<%= %>` and `<%- %>` insert."""
    code = ["function(data) { var html = ''; with (data) {"]
    at = 0
    for found in _PART.finditer(text):
        code.append(f"html += {json.dumps(text[at : found.start()])};")
        kind, expression = found.groups()
        code.append(f"html += escapeText({expression.strip()});" if kind else expression)
        at = found.end()
    code.append(f"html += {json.dumps(text[at:])};")
    return "\n".join([*code, "} return html; }"])


# By template: regular expressions and their replacements, with \1 for the pattern's group.
_CHANGES: dict[str, tuple[tuple[str, str], ...]] = {
    "base.html": (
        (r"<script src=", r'<script nonce="{{ script_nonce() }}" src='),
        (
            r'<script type="text/javascript">',
            rf'<script nonce="{{{{ script_nonce() }}}}">{_SCRIPT}'.replace("\\", "\\\\"),
        ),
        (r"\s*<script [^>]*underscore-umd-min\.js[^>]*></script>", ""),
    ),
    "jobs.html": (
        # The value would be escaped twice.
        (r"\$\('<div/>'\)\.text\((d\.\w+)\)\.html\(\)", r"\1"),
        # The sweep would re-dispatch what these buttons remove.
        (r'<a href="[^"]*" id="(?:empty|compact)-btn".*?</a>', ""),
    ),
    "scripts/jobs.js": (
        # Flask doesn't autoescape .js files.
        (r"'\{\{ queue\.name \}\}'", "{{ queue.name|tojson }}"),
    ),
    "scripts/job.js": (
        # Show the button in the states that POST /jobs/:id/retry accepts, and hide it once the job waits again.
        (
            r'if \(job\.status === "failed"\) \{\s*\$\("#requeue-job-btn"\)\.show\(\)\s*\}',
            '$("#requeue-job-btn").toggle(job.status === "failed" || job.status === "canceled");',
        ),
    ),
}
