// Banners of Muster: docs/banner-events.md
export async function ranked(open, ...where) {
  for (const one of open) {
    const text = new TextEncoder().encode([...where, one.banner.id.slice(4)].join("\n"));
    const bits = new DataView(await crypto.subtle.digest("SHA-256", text));
    const draw = (bits.getUint32(0) * 2 ** 20 + (bits.getUint32(4) >>> 12) + 0.5) / 2 ** 52;
    one.score = -Math.log(draw) / one.weight;
  }
  return open.sort((a, b) => b.priority - a.priority || a.score - b.score || (a.banner.id < b.banner.id ? -1 : 1));
}

export function muster({ url, key, placements }) {
  const kept = JSON.parse(localStorage.muster ?? '{"answer":{"placements":[]},"queue":[],"gone":{}}');
  const save = () => (localStorage.muster = JSON.stringify(kept));
  const sessionId = crypto.randomUUID(), times = {};

  const call = (path, more) => fetch(url + path, { ...more, headers: { Authorization: "Bearer " + key,
    "Content-Type": "application/json", "X-Muster-Viewer": kept.viewer ?? "", "If-None-Match": kept.etag ?? "" } });

  async function refresh() {
    const reply = await call("/v1/banners?offline=true&placement=" + placements.join("&placement="));
    if (reply.status !== 200) return;
    kept.answer = await reply.json();
    kept.viewer = kept.answer.viewerToken ?? kept.viewer;
    kept.etag = reply.headers.get("ETag");
    save();
  }

  const full = (id, most) => times[id] >= (most.perSession ?? 1e9) || (most.stopAfterDismissal && kept.gone[id]);

  async function shown(place) {
    const { rotation, limits } = kept.answer.placements.find((p) => p.placement === place) ?? {};
    if (!rotation) return [];
    const banners = [], now = Date.now(), turn = Math.floor(now / 1000 / rotation.windowSeconds);
    const open = rotation.candidates.filter(({ banner, priority, startsAt, expiresAt }) =>
      !(Date.parse(startsAt) > now || Date.parse(expiresAt) <= now)
      && (priority > 100 || !(full(place, limits) || full(banner.id, banner.limits))));
    let least = 0;
    for (const { banner, held, priority } of await ranked(open, kept.answer.viewer, place, turn)) {
      if (banners.length === rotation.slots || priority < least) break;
      if (held) track("HIDDEN", banner, place);
      else least = banners.push(banner) && priority % 101;
    }
    return banners;
  }

  function track(kind, { id, impressionToken: token }, place) {
    const counts = { IMPRESSION: times, DISMISS: kept.gone }[kind] ?? {};
    for (const of of [id, place]) counts[of] = (counts[of] ?? 0) + 1;
    if (kind === "CLICK" || !times[kind + token])
      kept.queue.push({ id: crypto.randomUUID(), kind, token, sessionId, occurredAt: new Date() });
    times[kind + token] = 1;
    save();
  }

  async function flush() {
    const events = kept.queue.slice(0, 1000);
    if (!events.length) return;
    const sent = await call("/v1/banner-events", { method: "POST", body: JSON.stringify({ events }) });
    if (sent.ok) kept.queue = kept.queue.filter((e) => !events.includes(e));
    save();
  }

  return { refresh, shown, track, flush };
}
