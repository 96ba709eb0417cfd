"""The address of a search: the scripts that write it into the browser's and copy it for others."""

import json

OURS = ("tab", "method", "example", "id", "text", "negative", "weight", "label", "k", "part")
"""The parameters that say what was searched for. Others, Hugging Face's signature of a private Space say, stay."""

TO_ADDRESS = """(query) => {
  const url = new URL(window.location);
  for (const name of %s) url.searchParams.delete(name);
  for (const [name, value] of new URLSearchParams(query)) url.searchParams.set(name, value);
  window.history.replaceState(null, '', url);
}""" % json.dumps(OURS)  # noqa: UP031 (braces are JavaScript's)

LANGUAGE_TO_ADDRESS = """(language) => {
  const url = new URL(window.location);
  url.searchParams.set('lang', language);
  window.history.replaceState(null, '', url);
  document.documentElement.lang = language;
}"""

# A page in a frame may be refused the clipboard; the older way needs only the click.
_COPY = """async (words) => {
  const here = new URL(window.location), host = %s;
  const link = new URL(host ? `https://${host}/` : here.origin + here.pathname);
  for (const name of %s) for (const value of here.searchParams.getAll(name)) link.searchParams.append(name, value);
  const older = () => {
    const field = document.createElement('textarea');
    field.value = link;
    document.body.append(field);
    field.select();
    document.execCommand('copy');
    field.remove();
  };
  try { await navigator.clipboard.writeText(link); } catch { older(); }
  const button = document.getElementById('share'), [copy, copied] = JSON.parse(words);
  button.textContent = copied;
  setTimeout(() => { button.textContent = copy; }, 2000);
}"""


def copy_script(host: str | None) -> str:
    """The script of a button that copies the address of the search on the page.

    `host` is where a Space is seen by itself: within huggingface.co it is a frame, whose address is not the visitor's.
    """
    return _COPY % (json.dumps(host), json.dumps((*OURS, "lang")))
