// From what the daemon and the transport say to the errors of this package.

import { fromBinary } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import { type ConnectError, Code as GrpcCode } from "@connectrpc/connect";
import { ClaudemeshError, type ErrorFields } from "./error.js";
import { CODES, STATUSES } from "./errors.js";
import { CandidatesSchema, type ErrorDetail, type FieldViolation, FieldViolationSchema } from "./gen/claudemesh/v1/common_pb.js";

export type Code = keyof typeof CODES;

function isOwn<T extends object>(table: T, key: string | number): key is keyof T & (string | number) {
  return Object.hasOwn(table, key);
}

/** The error of a code of this package; what the table says of it stands unless `fields` says otherwise. */
export function newError(code: Code, message: string, fields?: ErrorFields): ClaudemeshError;
/** The error of a code that the daemon gave, in the type of its gRPC status when the table does not hold it. */
export function newError(code: string, message: string, fields: ErrorFields & { grpcCode: number }): ClaudemeshError;
export function newError(code: string, message: string, fields: ErrorFields = {}): ClaudemeshError {
  if (isOwn(CODES, code)) {
    const { type, grpcCode, retryable } = CODES[code];
    return new type(code, message, { grpcCode, retryable, ...fields });
  }
  const status = fields.grpcCode ?? 2;
  const type = isOwn(STATUSES, status) ? STATUSES[status] : ClaudemeshError;
  return new type(code, message, fields);
}

/** The error of the send with that id. It is a new one, since one failure can end many sends. */
export function ofSend(error: unknown, clientMessageId: string): unknown {
  if (!(error instanceof ClaudemeshError) || error.clientMessageId !== undefined) return error;
  const { code, message, metadata, candidates, fieldViolations, retryable, retryAfterMs, grpcCode, cause } = error;
  return newError(code, message, {
    metadata,
    candidates: [...candidates],
    fieldViolations: [...fieldViolations],
    retryable,
    retryAfterMs,
    grpcCode,
    cause,
    clientMessageId,
  });
}

/** A failure that stands in an answer, such as one send of a stream. */
export function fromDetail(detail: ErrorDetail): ClaudemeshError {
  return newError(detail.code, detail.message, {
    metadata: detail.metadata,
    candidates: detail.candidates,
    fieldViolations: detail.fieldViolations,
    retryable: detail.retryable,
    retryAfterMs: detail.retryable && detail.retryAfterMs > 0 ? detail.retryAfterMs : undefined,
    grpcCode: detail.grpcCode,
  });
}

/** The status of a call that the daemon ended; undefined when it is not from the daemon, since it has no ErrorInfo. */
export function fromStatus(error: ConnectError): ClaudemeshError | undefined {
  const details = readDetails(error);
  if (details.reason === undefined) return undefined;
  const { reason, ...fields } = details;
  // The table knows better whether a code that it holds is worth another try.
  if (isOwn(CODES, reason)) delete fields.retryable;
  return newError(reason, error.rawMessage, { ...fields, grpcCode: error.code, cause: error });
}

/** A bare gRPC status: one that says nothing but its number and text. It gets a code that has a page. */
export function fromBareStatus(error: ConnectError): ClaudemeshError {
  return newError(BARE.get(error.code) ?? "internal_error", error.rawMessage, { grpcCode: error.code, cause: error });
}

const BARE = new Map<GrpcCode, Code>([
  [GrpcCode.Canceled, "cancelled"],
  [GrpcCode.DeadlineExceeded, "deadline_exceeded"],
  [GrpcCode.Unavailable, "daemon_not_running"],
  [GrpcCode.Unimplemented, "not_served"],
  [GrpcCode.InvalidArgument, "invalid_argument"],
  [GrpcCode.Unauthenticated, "unauthenticated"],
  [GrpcCode.PermissionDenied, "permission_denied"],
  [GrpcCode.ResourceExhausted, "payload_too_large"],
  [GrpcCode.OutOfRange, "payload_too_large"],
]);

interface Details extends ErrorFields {
  reason?: string;
  metadata: Record<string, string>;
  fieldViolations: FieldViolation[];
}

/**
 * Reads the details of a status. Those of google.rpc are read field by field: three small messages are not worth their
 * generated code, and a second copy of it would clash with an application's own.
 */
function readDetails(error: ConnectError): Details {
  const read: Details = { metadata: {}, fieldViolations: [] };
  for (const detail of error.details) {
    if (!("type" in detail)) continue;
    try {
      switch (detail.type) {
        case "google.rpc.ErrorInfo":
          fields(detail.value, (number, reader) => {
            if (number === 1) read.reason = reader.string();
            else if (number === 3) readEntry(reader.bytes(), read.metadata);
            else return false;
            return true;
          });
          break;
        case "google.rpc.RetryInfo":
          fields(detail.value, (number, reader) => {
            if (number !== 1) return false;
            const delay = fromBinary(DurationSchema, reader.bytes());
            read.retryAfterMs = Number(delay.seconds) * 1000 + delay.nanos / 1e6;
            return true;
          });
          // The daemon sends it with what can succeed later, and with nothing else.
          read.retryable = true;
          break;
        case "google.rpc.BadRequest":
          fields(detail.value, (number, reader) => {
            if (number !== 1) return false;
            // The first two fields are those of google.rpc.BadRequest.FieldViolation.
            read.fieldViolations.push(fromBinary(FieldViolationSchema, reader.bytes()));
            return true;
          });
          break;
        case "claudemesh.v1.Candidates":
          read.candidates = fromBinary(CandidatesSchema, detail.value).candidates;
          break;
      }
    } catch {
      // A detail that cannot be read takes nothing from the others.
    }
  }
  return read;
}

function fields(bytes: Uint8Array, take: (number: number, reader: BinaryReader) => boolean): void {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    if (wireType !== WireType.LengthDelimited || !take(number, reader)) reader.skip(wireType, number);
  }
}

function readEntry(bytes: Uint8Array, into: Record<string, string>): void {
  let key = "";
  let value = "";
  fields(bytes, (number, reader) => {
    if (number === 1) key = reader.string();
    else if (number === 2) value = reader.string();
    else return false;
    return true;
  });
  Object.defineProperty(into, key, { value, enumerable: true, configurable: true, writable: true });
}
