// docs/banner-events.md
export async function ranked(open, ...where) {
	for (const one of open) {
		const text = new TextEncoder().encode([...where, one.banner.id.slice(4)].join("\n"));
		const digest = new DataView(await crypto.subtle.digest("SHA-256", text));
		one.score = -Math.log((Number(digest.getBigUint64(0) >> 12n) + 0.5) / 2 ** 52) / one.weight;
	}
	return open.sort((a, b) => b.priority - a.priority || a.score - b.score || (a.banner.id < b.banner.id ? -1 : 1));
}

export function muster({ url, key, placements }) {
	const load = () => JSON.parse(localStorage.muster ?? '{"queue":[],"gone":{}}');
	const my = load(), sessionId = crypto.randomUUID(), times = {};
	function save(edit) {
		({ queue: my.queue, gone: my.gone } = load());
		edit();
		localStorage.muster = JSON.stringify(my);
	}
	const call = (path, more) => fetch(url + path, { ...more, headers: { Authorization: "Bearer " + key,
		"Content-Type": "application/json", "X-Muster-Viewer": my.viewer ?? "", "If-None-Match": my.etag ?? "" } });
	async function refresh() {
		const reply = await call(["/v1/banners?offline=true", ...placements].join("&placement="));
		if (reply.status == 304) return;
		const answer = await reply.json();
		if (!reply.ok) throw answer.error;
		save(() => {
			if (answer.viewer != my.answer?.viewer) my.gone = {};
			Object.assign(my, { answer, etag: reply.headers.get("ETag"), viewer: answer.viewerToken ?? my.viewer });
		});
	}
	const full = (id, most) => times[id] >= (most.perSession ?? 1e9) || (most.stopAfterDismissal && my.gone[id]);
	async function shown(place) {
		const seen = [], { rotation, limits } = my.answer?.placements.find((p) => p.placement == place) ?? {};
		if (!rotation) return seen;
		const now = Date.now(), turn = Math.floor(now / 1e3 / rotation.windowSeconds);
		const open = rotation.candidates.filter((c) =>
			!(Date.parse(c.startsAt) > now || Date.parse(c.expiresAt) <= now)
			&& (c.priority > 100 || !(full(place, limits) || full(c.banner.id, c.banner.limits))));
		let least = 0;
		for (const { banner, held, priority } of await ranked(open, my.answer.viewer, place, turn)) {
			if (seen.length >= rotation.slots || priority < least) break;
			if (held) track("HIDDEN", banner, place);
			else least = seen.push(banner) && priority % 101;
		}
		return seen;
	}
	const track = (kind, { id, impressionToken: token }, place) => save(() => {
		const all = { IMPRESSION: times, DISMISS: my.gone }[kind] ?? {};
		for (const of of [id, place]) all[of] = -~all[of];
		if (kind == "CLICK" || !times[kind + token])
			my.queue = [...my.queue, { id: crypto.randomUUID(), kind, token, sessionId, occurredAt: new Date() }].slice(-1e3);
		times[kind + token] = 1;
	});
	async function flush() {
		const events = load().queue;
		if (events[0] && (await call("/v1/banner-events", { method: "POST", body: JSON.stringify({ events }) })).ok)
			save(() => (my.queue = my.queue.filter((e) => events.every((s) => s.id != e.id))));
	}
	return { refresh, shown, track, flush };
}
