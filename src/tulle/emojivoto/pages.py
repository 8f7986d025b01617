"""The two pages a browser sees: the ballot and the leaderboard. No script or style from elsewhere."""

__all__ = ["BALLOT", "LEADERBOARD"]

_STYLE = """
:root { color-scheme: light dark; font-family: system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; text-align: center; }
nav a { margin: 0 .75rem; }
#emoji { display: grid; grid-template-columns: repeat(auto-fill, minmax(3.5rem, 1fr)); gap: .5rem; margin-top: 1.5rem; }
button { font-size: 2rem; padding: .25rem; border: 1px solid transparent; border-radius: .5rem; background: none; }
button:hover, button:focus-visible { border-color: currentColor; cursor: pointer; }
#said { min-height: 1.5rem; }
.failed { color: #c0392b; }
table { margin: 1.5rem auto; border-collapse: collapse; }
td { padding: .25rem 1rem; text-align: left; }
"""

_FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Emoji Vote</title>
<meta name="viewport" content="width=device-width"><style>{style}</style></head>
<body><nav><a href="/">Vote</a><a href="/leaderboard">Leaderboard</a></nav>{body}<script>{script}</script></body></html>
"""

BALLOT = _FRAME.format(
    style=_STYLE,
    body="<h1>Emoji Vote</h1><p>Choose your favourite.</p><p id='said' role='status'></p><div id='emoji'></div>",
    script="""
const said = document.getElementById('said');
async function vote(emoji) {
  const answer = await fetch('/api/vote?choice=' + encodeURIComponent(emoji.shortcode));
  said.className = answer.ok ? '' : 'failed';
  said.textContent = answer.ok ? 'You voted for ' + emoji.unicode : 'The vote for ' + emoji.unicode + ' failed';
}
fetch('/api/list').then(answer => answer.json()).then(list => {
  for (const emoji of list) {
    const button = document.createElement('button');
    button.textContent = emoji.unicode; button.title = emoji.shortcode; button.onclick = () => vote(emoji);
    document.getElementById('emoji').append(button);
  }
}).catch(error => { said.className = 'failed'; said.textContent = 'The list cannot be had: ' + error; });
""",
)

LEADERBOARD = _FRAME.format(
    style=_STYLE,
    body="<h1>Leaderboard</h1><table id='ranking'></table><p id='said' role='status'></p>",
    script="""
async function refresh() {
  try {
    const ranking = await (await fetch('/api/leaderboard')).json();
    document.getElementById('ranking').replaceChildren(...ranking.map(emoji => {
      const row = document.createElement('tr');
      for (const text of [emoji.unicode, emoji.shortcode, emoji.votes]) row.insertCell().textContent = text;
      return row;
    }));
  } catch (error) { document.getElementById('said').textContent = 'The votes cannot be had: ' + error; }
}
refresh(); setInterval(refresh, 2000);
""",
)
