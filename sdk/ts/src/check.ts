// Arguments as JavaScript may give them: each is checked before anything is sent, and its name is told.

import { inspect } from "node:util";
import { create } from "@bufbuild/protobuf";
import { newError } from "./convert.js";
import { FieldViolationSchema } from "./gen/claudemesh/v1/common_pb.js";

/** Throws unless the value is fit for the field. */
export type Check = (field: string, value: unknown) => void;

/** The checks of all options that a call takes, by name. */
export type Checks = Readonly<Record<string, Check>>;

/** A wrong value as a text that is fit to be shown. */
export function shown(value: unknown): string {
  return inspect(value, { depth: 0, maxStringLength: 80, breakLength: Infinity });
}

/** `invalid_argument` for one field. */
export function invalid(field: string, what: string) {
  return newError("invalid_argument", `\`${field}\`: ${what}`, {
    fieldViolations: [create(FieldViolationSchema, { field, description: what })],
  });
}

/** Refuses what is no object of options, names that the call does not know, and values that do not fit. */
export function checkOptions(options: unknown, checks: Checks, field = "options"): void {
  if (!isObject(options)) throw invalid(field, `must be an object, not ${shown(options)}`);
  for (const [name, value] of Object.entries(options)) {
    const check = Object.hasOwn(checks, name) ? checks[name] : undefined;
    if (check === undefined) throw invalid(name, `is no option here; ${alternatives(name, Object.keys(checks))}`);
    // As if it were not there.
    if (value !== undefined) check(name, value);
  }
}

export const string: Check = (field, value) => {
  if (typeof value !== "string") throw invalid(field, `must be a string, not ${shown(value)}`);
  if (!value.isWellFormed()) throw invalid(field, "holds half of a surrogate pair, which UTF-8 cannot carry");
};

export const flag: Check = (field, value) => {
  if (typeof value !== "boolean") throw invalid(field, `must be true or false, not ${shown(value)}`);
};

/** A list of what the given check takes. */
export function listOf(check: Check): Check {
  return (field, value) => {
    if (!Array.isArray(value)) throw invalid(field, `must be an array, not ${shown(value)}`);
    for (const item of value) check(field, item);
  };
}

export const strings = listOf(string);

/** An object that JSON can carry as it is, which one of a class could not. */
export const json: Check = (field, value) => {
  if (!isObject(value) || !isJson(value)) throw invalid(field, `must be an object of JSON values, not ${shown(value)}`);
};

/** What every call takes. */
export const CALL = {
  timeoutMs: (field: string, value: unknown) => {
    if (!(typeof value === "number" && value > 0)) throw invalid(field, `must be a number above 0, not ${shown(value)}`);
  },
  signal: (field: string, value: unknown) => {
    // Another realm, or a library, may have a class of its own.
    if (!(isObject(value) && "aborted" in value && "addEventListener" in value))
      throw invalid(field, `must be an AbortSignal, not ${shown(value)}`);
  },
} satisfies Checks;

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isJson(value: unknown): boolean {
  if (Array.isArray(value)) return value.every(isJson);
  if (!isObject(value))
    return (
      (typeof value === "string" && value.isWellFormed()) ||
      value === null ||
      typeof value === "boolean" ||
      Number.isFinite(value)
    );
  const prototype: unknown = Object.getPrototypeOf(value);
  return (prototype === Object.prototype || prototype === null) && Object.entries(value).flat().every(isJson);
}

function alternatives(name: string, known: string[]): string {
  const nearest = known
    .map((other) => ({ other, distance: distance(name.toLowerCase().replaceAll("_", ""), other.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance)[0];
  if (nearest !== undefined && nearest.distance <= Math.max(2, nearest.other.length / 3))
    return `did you mean \`${nearest.other}\`?`;
  return `there are ${known.map((other) => `\`${other}\``).join(", ")}`;
}

/** How many characters to change, to add and to leave out. */
function distance(from: string, to: string): number {
  // A name of any length may be given, and is not worth more.
  if (from.length > 64) return Infinity;
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (from[i - 1] === to[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[to.length] ?? Infinity;
}
