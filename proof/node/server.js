// A server as users of the npm package jwt-redis-session run it: Express's request, as
// far as the package asks for it, on node:http.
//
//     node server.js '{"redis": 6379, "secret": "keyboard cat", "algorithm": "HS256"}'
//
// It prints the port that it listens on. POST /login makes a session of the body's data
// and claims; GET /me reads it; POST /update adds the body to it; POST /logout ends it.
// A request with ?hold=1 stops between the read and its write until GET /go.
"use strict";
const http = require("node:http");
const redis = require("redis");
const jwtRedisSession = require("jwt-redis-session");

const options = JSON.parse(process.argv[2]);
const client = redis.createClient({ host: "127.0.0.1", port: options.redis });
const session = jwtRedisSession({
	client,
	secret: options.secret,
	algorithm: options.algorithm,
	keyspace: options.keyspace,
	maxAge: options.maxAge,
});

const held = [];

function readBody(req) {
	return new Promise((resolve) => {
		let text = "";
		req.on("data", (chunk) => (text += chunk));
		req.on("end", () => resolve(text ? JSON.parse(text) : {}));
	});
}

const routes = {
	"POST /login": (req, answer) => {
		Object.assign(req.session, req.json.data);
		req.session.create(req.json.claims || {}, (err, token) => answer(err, { token, id: req.session.id }));
	},
	"GET /me": (req, answer) => {
		if (!req.session.id) return answer("no session");
		answer(null, req.session.toJSON());
	},
	"POST /update": (req, answer) => {
		if (!req.session.id) return answer("no session");
		const write = () => {
			Object.assign(req.session, req.json);
			req.session.update((err) => answer(err, {}));
		};
		if (req.query.hold) held.push(write);
		else write();
	},
	"POST /logout": (req, answer) => {
		if (!req.session.id) return answer("no session");
		req.session.destroy((err) => answer(err, {}));
	},
	"GET /held": (req, answer) => answer(null, { held: held.length }),
	"GET /go": (req, answer) => {
		for (const write of held.splice(0)) write();
		answer(null, {});
	},
};

const server = http.createServer(async (req, res) => {
	const url = new URL(req.url, "http://localhost");
	req.json = await readBody(req);
	req.query = Object.fromEntries(url.searchParams);
	req.get = (name) => req.headers[name.toLowerCase()];
	session(req, res, () => {
		routes[req.method + " " + url.pathname](req, (err, body) => {
			res.statusCode = err ? 401 : 200;
			res.end(JSON.stringify(err ? { error: String(err) } : body));
		});
	});
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.on("end", () => process.exit()).resume(); // it ends with the test
