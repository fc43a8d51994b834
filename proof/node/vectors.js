// Prints tokens of every kind that the npm package jwt-redis-session makes, for
// internal/jwt/testdata/legacy/tokens.json:
//
//     npm ci && node vectors.js
"use strict";
const jwtRedisSession = require("jwt-redis-session");

const kinds = [
	["default", "keyboard cat"],
	["secret of one byte", "s"],
	["secret of 64 bytes", "0123456789abcdef".repeat(4)],
	["secret that is not ASCII", "schlüssel"],
	["HS384", "keyboard cat", "HS384"],
	["HS512", "keyboard cat", "HS512"],
	["claims of its README", "keyboard cat", undefined, { iss: "my application name", aud: "myapplication.com" }],
	["a subject", "keyboard cat", undefined, { sub: "anna" }],
	["a subject that is a number", "keyboard cat", undefined, { sub: 42 }],
	["an end", "keyboard cat", undefined, { exp: 4102444800, nbf: 1700000000.5 }],
	["a claim named idle", "keyboard cat", undefined, { idle: true }],
	["nested claims", "keyboard cat", undefined, { user: { id: 7, roles: ["a", "b"], name: "Zoë \u{1f600}" } }],
];

const client = { setex: (key, ttl, value, callback) => callback(null) };

const tokens = kinds.map(([name, secret, algorithm, claims]) => {
	const req = { get() {}, query: {} };
	jwtRedisSession({ client, secret, algorithm })(req, {}, () => {});
	const token = {};
	req.session.create(claims || {}, (err, made) => {
		if (err) throw err;
		Object.assign(token, { name, secret, algorithm: algorithm || "HS256", id: req.session.id, token: made });
	});
	return token;
});
console.log(JSON.stringify(tokens, null, "\t"));
