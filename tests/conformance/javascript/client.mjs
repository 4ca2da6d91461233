// A complete Seatkeeper client: the stream, renewals, resuming, errors. The rules are those of
// docs/how-to/write-a-client.md; comments name its sections. Nothing of Seatkeeper is used but its .proto files.

import { randomBytes } from "node:crypto";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const PROTO = fileURLToPath(new URL("../../../proto", import.meta.url));
const loaded = loader.loadSync("seatkeeper/v1/seat_service.proto", {
  includeDirs: [PROTO], keepCase: true, longs: Number, enums: String, oneofs: true, defaults: true,
});
const { SeatService } = grpc.loadPackageDefinition(loaded).seatkeeper.v1;

const OPTIONS = {
  "grpc.keepalive_time_ms": 20000, "grpc.keepalive_timeout_ms": 2000,
  "grpc.keepalive_permit_without_calls": 1, "grpc.enable_http_proxy": 0,
};
const [CALL_SECONDS, CLOSE_SECONDS, TICK_MS, DENIED_SECONDS] = [10, 2, 100, 60];
const FATAL = new Set([grpc.status.INVALID_ARGUMENT, grpc.status.PERMISSION_DENIED,
  grpc.status.UNAUTHENTICATED, grpc.status.UNIMPLEMENTED]);
// Denials that leave a release nothing to do; after any other it is repeated.
const NOTHING_HELD = new Set(["POOL_NOT_FOUND", "NOT_YOURS", "INVALID_ARGUMENT", "FINISHED", "NO_SEAT_FREE",
  "TOO_MANY_SEATS"].map((name) => `DENIAL_REASON_${name}`));
const GONE = new Set([grpc.status.NOT_FOUND, grpc.status.PERMISSION_DENIED]);

const now = () => performance.now() / 1000; // monotonic
const seconds = (duration) => (duration ? duration.seconds + duration.nanos / 1e9 : undefined);
const duration = (value) => ({ seconds: Math.floor(value), nanos: Math.floor((value % 1) * 1e9) });

let lastId = 0n;
/** Ids: a UUIDv7, greater than the one before. */
export function newId() {
  const random = BigInt(`0x${randomBytes(10).toString("hex")}`);
  let id = (BigInt(Date.now()) << 80n) | random;
  id = (id & ~(0xfn << 76n) & ~(0x3n << 62n)) | (0x7n << 76n) | (0x2n << 62n);
  lastId = id > lastId ? id : lastId + 1n;
  return lastId.toString(16).padStart(32, "0").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

export class Denied extends Error {
  constructor(reason, message, retryAfter) {
    super(message);
    Object.assign(this, { reason, retryAfter });
  }
}

export class SeatClient {
  #nodes; #left = new Map(); #denied = new Map(); // address -> leave it alone until, cannot decide until
  #session; #call; #channel; #address; #isOpen = false; #attemptEnds; #restUntil = 0; #rounds = 0;
  #asks = new Map(); #held = new Map(); #leaving = new Map(); // by grant id
  #timer; #closed = false; #onSessionLost;

  /** `attempt`: how many seconds a node has to open the session, before the next is tried. */
  constructor({ nodes, holder, project = "", ttl, attempt = 3 }) {
    this.#nodes = [...nodes];
    Object.assign(this, { holder, project, ttl, attempt });
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
  }

  /** Takes seats. `onQueued(position)`, `onLost(message)`; `signal` gives the request up. */
  acquire(pool, { seats = 1, priority = 0, project = "", wait = null, onQueued, onLost, signal } = {}) {
    return new Promise((resolve, reject) => {
      const ask = { pool, seats, priority, project, wait, onQueued, onLost, resolve, reject,
        id: newId(), askedAt: now(), retryAt: null, anew: false, elsewhere: false, attempts: 0 };
      signal?.addEventListener("abort", () => {
        if (this.#asks.delete(ask.id)) this.#leave(ask.id, pool, () => reject(signal.reason));
      });
      this.#asks.set(ask.id, ask);
      this.#sendAsk(ask);
      this.#connect();
    });
  }

  isHeld(grant) {
    return this.#held.get(grant.id) === grant && now() < this.#until();
  }

  release(grant) {
    if (!this.#held.delete(grant.id)) return Promise.resolve();
    return new Promise((resolve) => this.#leave(grant.id, grant.pool, resolve));
  }

  /** Ends the session: all seats are free at once. */
  async close() {
    this.#closed = true;
    for (const ask of this.#asks.values()) ask.reject(new Error("the client was closed"));
    this.#asks.clear();
    const session = this.#session;
    if (session?.opened) {
      const over = new Promise((resolve) => (this.#onSessionLost = resolve));
      if (this.#send({ close: {} })) {
        await Promise.race([over, new Promise((done) => setTimeout(done, CLOSE_SECONDS * 1000))]);
      }
      if (this.#session) await this.#closeByCall(session);
    }
    clearInterval(this.#timer);
    this.#loseSession("the client was closed");
    this.#hangUp();
  }

  // The session and its time ---------------------------------------------------------------------

  // Time: counted from when the last answered renewal was sent.
  #until() {
    const session = this.#session;
    return session?.opened ? session.sent + session.ttl - Math.min(1, session.ttl / 4) : 0;
  }

  #answered(sent, answer) {
    const session = this.#session;
    session.sent = sent;
    session.ttl = seconds(answer.ttl);
    session.renewAt = Math.min(now() + seconds(answer.renew_in), sent + session.ttl / 3);
    session.asking = null;
  }

  #tick() {
    const session = this.#session;
    if (session?.opened && now() >= this.#until()) return this.#loseSession("not renewed in time");
    if (this.#call && !this.#isOpen && now() >= this.#attemptEnds) this.#nextNode();
    if (session?.opened && this.#isOpen) {
      if (session.asking && now() >= session.asking + Math.min(2, session.ttl / 4)) this.#nextNode();
      else if (!session.asking && now() >= session.renewAt) this.#renew();
    }
    for (const ask of [...this.#asks.values()]) {
      if (now() >= ask.askedAt + (ask.wait ?? Infinity) + CALL_SECONDS
          || (!session?.opened && now() >= ask.askedAt + CALL_SECONDS && ask.wait !== null)) {
        this.#asks.delete(ask.id);
        this.#leave(ask.id, ask.pool, () => {});
        ask.reject(new Error("no node answered"));
      } else if (ask.retryAt !== null && now() >= ask.retryAt) {
        if (ask.anew) this.#rename(ask);
        ask.retryAt = null;
        if (!this.#movesOn(ask)) this.#sendAsk(ask);
      }
    }
    for (const [id, leaving] of this.#leaving) {
      if (leaving.retryAt === null || now() < leaving.retryAt) continue;
      leaving.retryAt = null;
      if (!this.#movesOn(leaving)) this.#sendRelease(id, leaving.pool);
    }
    this.#connect();
  }

  #renew() {
    const session = this.#session;
    session.asking = now();
    session.sequence += 1;
    const tokens_for = [...this.#held.values()].map(({ pool, id }) => ({ pool, grant_id: id }));
    this.#send({ renew: { sequence: session.sequence, tokens_for } });
  }

  #loseSession(message) {
    if (!this.#session) return;
    this.#session = undefined;
    this.#onSessionLost?.();
    for (const done of this.#leaving.values()) done.done();
    this.#leaving.clear();
    const held = [...this.#held.values()];
    this.#held.clear();
    for (const grant of held) grant.onLost?.(message);
    for (const ask of [...this.#asks.values()]) this.#rename(ask); // asked for in the next session
    this.#hangUp();
  }

  // The stream -----------------------------------------------------------------------------------

  #connect() {
    const wanted = !this.#closed && (this.#session?.opened || this.#asks.size > 0);
    if (this.#call || !wanted || now() < this.#restUntil) return;
    this.#address = [...this.#nodes].sort(
      (a, b) => this.#pause(this.#left, a) - this.#pause(this.#left, b)
        || this.#pause(this.#denied, a) - this.#pause(this.#denied, b))[0];
    this.#channel = new SeatService(this.#address, grpc.credentials.createInsecure(), OPTIONS);
    const call = this.#channel.Session();
    this.#call = call;
    this.#attemptEnds = now() + this.attempt;
    call.on("data", (response) => {
      if (call === this.#call) for (const event of response.events) this.#receive(event);
    });
    call.on("error", (error) => call === this.#call && this.#ended(error));
    call.on("end", () => {}); // the status follows, as an error unless it is OK
    call.on("status", (status) => status.code === 0 && call === this.#call && this.#ended(null));
    call.write({ commands: [this.#hello()] });
  }

  #pause(until, address) {
    return Math.max((until.get(address) ?? 0) - now(), 0);
  }

  // Errors: what a node could not decide is sent to another one, if one has not denied it lately. Where all
  // have, the client stays: to connect each time would not help.
  #movesOn(waiting) {
    if (!waiting.elsewhere || !this.#isOpen) return false;
    waiting.elsewhere = false;
    if (!this.#pause(this.#denied, this.#address)) {
      this.#denied.set(this.#address, now() + DENIED_SECONDS * (0.5 + Math.random()));
    }
    const fits = (address) => !this.#pause(this.#denied, address) && !this.#pause(this.#left, address);
    if (!this.#nodes.some(fits)) return false;
    this.#hangUp();
    this.#connect();
    return true;
  }

  #hello() {
    if (this.#session?.opened) return { resume: { credentials: this.#session.credentials } };
    // A new session at each attempt: nothing is sent in one before it is open.
    const credentials = { session_id: newId(), secret: randomBytes(32) };
    this.#session = { credentials, sent: now(), sequence: 0, opened: false, asking: null };
    const ttl = this.ttl === undefined ? undefined : duration(this.ttl);
    return { open: { credentials, holder: this.holder, project: this.project, ttl } };
  }

  #send(command) {
    if (!this.#isOpen) return false;
    this.#call.write({ commands: [command] });
    return true;
  }

  #ended(error) {
    const [wasOpen, session, found] = [this.#isOpen, this.#session, details(error)];
    this.#hangUp();
    if (!session) return; // it was lost before: what waits begins anew
    if (session.opened && !wasOpen && error && GONE.has(error.code)) {
      this.#loseSession(error.details);
    } else if (!session.opened) {
      this.#session = undefined;
      if (FATAL.has(error?.code)) {
        const failure = new Denied(found.reason ?? "", error.details);
        for (const ask of this.#asks.values()) ask.reject(failure);
        this.#asks.clear();
      }
    }
    if (error) this.#left.set(this.#address, now() + 5);
    this.#rest(found.retryAfter, wasOpen);
  }

  // When the stream ends: the next node at once, and rest only between rounds over all of them.
  #rest(retryAfter, wasGood) {
    this.#rounds = wasGood ? 0 : this.#rounds + 1;
    const left = this.#session?.opened ? (this.#until() - now()) / 4 : Infinity;
    const backoff = Math.min(30, 2 ** Math.floor(this.#rounds / this.#nodes.length) - 1);
    this.#restUntil = now() + (retryAfter ?? Math.min(Math.random() * backoff, Math.max(0, left)));
  }

  #nextNode() {
    this.#left.set(this.#address, now() + 5);
    this.#hangUp();
    this.#connect();
  }

  #hangUp() {
    const [call, channel] = [this.#call, this.#channel];
    this.#call = this.#channel = undefined;
    this.#isOpen = false;
    if (this.#session) this.#session.asking = null;
    call?.cancel();
    channel?.close();
  }

  #closeByCall({ credentials }) {
    const one = (address) => new Promise((resolve) => {
      const channel = new SeatService(address, grpc.credentials.createInsecure(), OPTIONS);
      const deadline = Date.now() + CLOSE_SECONDS * 1000;
      channel.CloseSession({ credentials }, { deadline }, (error) => {
        channel.close();
        resolve(!error);
      });
    });
    return Promise.all(this.#nodes.map(one));
  }

  // Events ---------------------------------------------------------------------------------------

  #receive(event) {
    const of = event[event.event];
    switch (event.event) {
      case "opened": return this.#onOpened(of);
      case "renewed": return this.#onRenewed(of);
      case "queued": return this.#asks.get(of.grant_id)?.onQueued?.(of.position);
      case "granted": return this.#onGranted(of);
      case "denied": return this.#onDenied(of);
      case "released": return this.#onReleased(of.grant_id);
      case "lost": return this.#onLost(of);
      case "session_lost": return this.#loseSession(of.message);
      case "go_away": return this.#onGoAway(seconds(of.within) ?? 0);
      default: // `ring` is a hint that this client does not need; the rest is of a newer service
    }
  }

  #onOpened(opened) {
    const session = this.#session;
    this.#isOpen = true;
    if (session.opened) this.#renew(); // resumed
    else this.#answered(session.sent, opened);
    session.opened = true;
    for (const [id, leaving] of this.#leaving) {
      leaving.elsewhere = false;
      if (leaving.retryAt === null) this.#sendRelease(id, leaving.pool);
    }
    for (const ask of this.#asks.values()) {
      ask.elsewhere = false;
      if (ask.retryAt === null) this.#sendAsk(ask);
    }
  }

  #onRenewed(renewed) {
    const session = this.#session;
    if (renewed.sequence !== session.sequence || !session.asking) return; // an older one
    this.#answered(session.asking, renewed);
    for (const { grant, token } of renewed.tokens) {
      const held = this.#held.get(grant.grant_id);
      if (held) held.token = token;
    }
  }

  #onGranted({ grant_id: id, pool, seats, fence, token }) {
    const ask = this.#asks.get(id);
    if (ask) {
      this.#asks.delete(id);
      const grant = { id, pool, seats, fence, token, onLost: ask.onLost };
      this.#held.set(id, grant);
      ask.resolve(grant);
    } else if (!this.#held.has(id) && !this.#leaving.has(id)) {
      this.#leave(id, pool, () => {}); // it is unwanted here
    }
  }

  #onDenied({ grant_id: id, reason, message, retry_after }) {
    if (reason === "DENIAL_REASON_SESSION_LOST") return this.#loseSession(message);
    const [ask, after] = [this.#asks.get(id), seconds(retry_after) ?? 1];
    if (!ask) return this.#onReleaseDenied(id, reason, after);
    const inTime = ask.wait === null || now() + after < ask.askedAt + ask.wait;
    ask.attempts += 1;
    if (reason === "DENIAL_REASON_FINISHED" && ask.attempts < 8) {
      this.#rename(ask);
      this.#sendAsk(ask);
    } else if (reason === "DENIAL_REASON_UNAVAILABLE") {
      Object.assign(ask, { retryAt: now() + after, anew: false, elsewhere: true });
    } else if (reason === "DENIAL_REASON_OVERLOADED" && inTime) {
      Object.assign(ask, { retryAt: now() + after, anew: true });
    } else {
      this.#asks.delete(id);
      ask.reject(new Denied(String(reason), message, seconds(retry_after)));
    }
  }

  #onReleaseDenied(id, reason, after) {
    if (NOTHING_HELD.has(reason)) return this.#onReleased(id);
    const elsewhere = reason === "DENIAL_REASON_UNAVAILABLE";
    Object.assign(this.#leaving.get(id) ?? {}, { retryAt: now() + after, elsewhere });
  }

  #onReleased(id) {
    const leaving = this.#leaving.get(id);
    this.#leaving.delete(id);
    leaving?.done();
  }

  #onLost({ grant_id: id, message }) {
    const [grant, ask] = [this.#held.get(id), this.#asks.get(id)];
    this.#held.delete(id);
    this.#asks.delete(id);
    grant?.onLost?.(message);
    ask?.reject(new Denied("DENIAL_REASON_FINISHED", message));
    this.#onReleased(id);
  }

  #onGoAway(within) {
    const [call, address] = [this.#call, this.#address];
    this.#left.set(address, now() + within + 10);
    setTimeout(() => {
      if (call !== this.#call) return;
      this.#hangUp();
      this.#connect();
    }, (Math.random() * within * 1000) / 2);
  }

  // Commands -------------------------------------------------------------------------------------

  #sendAsk(ask) {
    ask.retryAt = null;
    const { pool, id, seats, priority, project } = ask;
    const left = ask.wait === null ? undefined : Math.max(0, ask.wait - (now() - ask.askedAt));
    const wait = left === undefined ? undefined : duration(left);
    this.#send({ acquire: { pool, grant_id: id, seats, priority, project, wait } });
  }

  #leave(id, pool, done) {
    if (!this.#session?.opened) return done(); // gone with its session
    this.#leaving.set(id, { pool, done, retryAt: null, elsewhere: false });
    this.#sendRelease(id, pool);
  }

  #sendRelease(id, pool) {
    this.#send({ release: { grant: { pool, grant_id: id } } });
  }

  #rename(ask) {
    this.#asks.delete(ask.id);
    Object.assign(ask, { id: newId(), retryAt: null, anew: false, elsewhere: false });
    this.#asks.set(ask.id, ask);
  }
}

// Errors: what the service says of a status, in `grpc-status-details-bin`; nothing when gRPC made it.
function details(error) {
  const found = {};
  for (const status of error?.metadata?.get("grpc-status-details-bin") ?? []) {
    for (const [, any] of fields(status).filter(([number]) => number === 3)) {
      const { 1: type, 2: value } = Object.fromEntries(fields(any));
      const of = Object.fromEntries(fields(value));
      if (`${type}`.endsWith("google.rpc.ErrorInfo") && `${of[2]}` === "seatkeeper") {
        found.reason = `${of[1]}`;
      } else if (`${type}`.endsWith("google.rpc.RetryInfo")) {
        const delay = Object.fromEntries(fields(of[1] ?? Buffer.alloc(0)));
        found.retryAfter = (delay[1] ?? 0) + (delay[2] ?? 0) / 1e9;
      }
    }
  }
  return found;
}

// The fields of a message, as [number, value]: enough of protobuf for `google.rpc.Status`.
function fields(bytes) {
  const found = [];
  let at = 0;
  const varint = () => {
    let [value, scale] = [0, 1];
    for (;;) {
      const byte = bytes[at++];
      value += (byte & 0x7f) * scale;
      if (!(byte & 0x80)) return value;
      scale *= 128;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    let value = varint();
    if (tag % 8 === 2) value = bytes.subarray(at, (at += value)); // it was the length
    found.push([tag >> 3, value]);
  }
  return found;
}
