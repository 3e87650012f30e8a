"""The page to try queries with, of development only: GraphiQL, and a plain form until it is there.

GraphiQL is 4 MB that unpkg.com serves to the browser; the integrity of each file is pinned. The form needs no
network, so that a machine without one has a page that works.
"""

from starlette.responses import HTMLResponse

POLICY = (
    "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline' https://unpkg.com; "
    "style-src 'unsafe-inline' https://unpkg.com; font-src data: https://unpkg.com; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Muster GraphiQL</title>
<link rel="icon" href="data:,">
<style>
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: #222 }
#graphiql { height: 100vh }
#plain { box-sizing: border-box; max-width: 70rem; margin: 0 auto; padding: 1rem }
textarea, input { box-sizing: border-box; width: 100%; font: 14px/1.4 monospace; padding: .4rem }
label { display: block; margin: .6rem 0 } button { font: inherit; padding: .3rem 1rem }
pre { background: #f6f6f6; padding: 1rem; white-space: pre-wrap; overflow-wrap: anywhere }
</style>
</head>
<body>
<div id="graphiql">
<div id="plain">
<h1>GraphQL</h1>
<p id="state">Loading GraphiQL from unpkg.com; this form works meanwhile.</p>
<label>Key, made with <code>muster key create</code>
<input id="key" placeholder="msk_..." autocomplete="off" spellcheck="false"></label>
<label>Operation <textarea id="query" rows="12" spellcheck="false"></textarea></label>
<label>Variables, as JSON <textarea id="variables" rows="4" spellcheck="false"></textarea></label>
<p><button id="send" type="button">Send</button></p>
<pre id="answer" hidden></pre>
</div>
</div>
<script>
const FILES = [
  ["react@18.2.0/umd/react.production.min.js",
   "sha384-tMH8h3BGESGckSAVGZ82T9n90ztNXxvdwvdM6UoR56cYcf+0iGXBliJ29D+wZ/x8"],
  ["react-dom@18.2.0/umd/react-dom.production.min.js",
   "sha384-bm7MnzvK++ykSwVJ2tynSE5TRdN+xL418osEVF2DE/L/gfWHj91J2Sphe582B1Bh"],
  ["graphiql@3.8.3/graphiql.min.css",
   "sha384-Mq3vbRBY71jfjQAt/DcjxUIYY33ksal4cgdRt9U/hNPvHBCaT2JfJ/PTRiPKf0aM"],
  ["graphiql@3.8.3/graphiql.min.js",
   "sha384-HbRVEFG0JGJZeAHCJ9Xm2+tpknBQ7QZmNlO/DgZtkZ0aJSypT96YYGRNod99l9Ie"],
];
const EXAMPLE = "{\\n  segments(first: 10) {\\n    edges {\\n      node {\\n        name\\n        type\\n"
  + "        size\\n      }\\n    }\\n  }\\n}\\n";
const place = (id) => document.getElementById(id);
const url = location.pathname;

place("query").value = EXAMPLE;
place("send").onclick = async () => {
  const answer = place("answer");
  answer.hidden = false;
  answer.textContent = "Sending";
  try {
    const headers = { "Content-Type": "application/json" };
    if (place("key").value.trim()) headers.Authorization = "Bearer " + place("key").value.trim();
    const body = JSON.stringify({ query: place("query").value, variables: variables() });
    const reply = await fetch(url, { method: "POST", headers, body });
    answer.textContent = JSON.stringify(await reply.json(), null, 2);
  } catch (fault) {
    answer.textContent = String(fault);
  }
};

function variables() {
  try {
    return JSON.parse(place("variables").value.trim() || "{}");
  } catch (fault) {
    throw "The variables are no JSON: " + fault.message;
  }
}

function load([path, integrity]) {
  return new Promise((loaded, failed) => {
    const style = path.endsWith(".css");
    const node = document.createElement(style ? "link" : "script");
    Object.assign(node, { crossOrigin: "anonymous", integrity, onload: loaded, onerror: failed });
    Object.assign(node, style ? { rel: "stylesheet", href: "https://unpkg.com/" + path }
                              : { async: false, src: "https://unpkg.com/" + path });
    document.head.append(node);
  });
}

Promise.all(FILES.map(load)).then(() => {
  // Whoever has begun to use the form keeps it.
  if (place("key").value || !place("answer").hidden) return;
  ReactDOM.createRoot(place("graphiql")).render(React.createElement(GraphiQL, {
    fetcher: GraphiQL.createFetcher({ url, subscriptionUrl: location.origin.replace("http", "ws") + url }),
    defaultQuery: '# Your key goes below, under Headers:\\n# {"Authorization": "Bearer msk_..."}\\n' + EXAMPLE,
    defaultEditorToolsVisibility: "headers",
    shouldPersistHeaders: true,
  }));
}).catch(() => {
  place("state").textContent = "GraphiQL comes from unpkg.com, which this browser cannot reach. This form sends"
    + " operations without it; the schema is in graphql/schema.graphql.";
});
</script>
</body>
</html>
"""


def page() -> HTMLResponse:
    """The page. What is typed into it goes to this API alone; GraphiQL keeps the key in the browser's storage."""
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-store"})
