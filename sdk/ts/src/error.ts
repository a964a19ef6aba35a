import type { Candidate, FieldViolation } from "./gen/claudemesh/v1/common_pb.js";

/** What an error can hold besides its code and its text. */
export interface ErrorFields {
  metadata?: Record<string, string>;
  candidates?: Candidate[];
  fieldViolations?: FieldViolation[];
  retryable?: boolean;
  retryAfterMs?: number | undefined;
  grpcCode?: number;
  clientMessageId?: string | undefined;
  cause?: unknown;
}

/** Every error of this package. Each code has a subclass with the literal `code`; act on it, never on the text. */
export class ClaudemeshError extends Error {
  /** The stable name of what went wrong, such as `unknown_peer`. Codes that this version does not know are passed on. */
  readonly code: string;
  /** Facts about this failure, by stable name. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Members that the destination may mean; only with `unknown_peer` and `ambiguous_peer`. */
  readonly candidates: readonly Candidate[];
  /** Fields of the request that are wrong. */
  readonly fieldViolations: readonly FieldViolation[];
  /** The same call, with the same id, can succeed later. */
  readonly retryable: boolean;
  /** How long to wait before a retry, when the daemon said so. */
  readonly retryAfterMs: number | undefined;
  /** The gRPC status by number, such as 5 for NOT_FOUND. */
  readonly grpcCode: number;
  /** The id of the send that failed. */
  readonly clientMessageId: string | undefined;

  constructor(code: string, message: string, fields: ErrorFields = {}) {
    super(message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.name = new.target.name;
    this.code = code;
    this.metadata = fields.metadata ?? {};
    this.candidates = fields.candidates ?? [];
    this.fieldViolations = fields.fieldViolations ?? [];
    this.retryable = fields.retryable ?? false;
    this.retryAfterMs = fields.retryAfterMs;
    this.grpcCode = fields.grpcCode ?? 2;
    this.clientMessageId = fields.clientMessageId ?? fields.metadata?.["client_message_id"];
  }

  /** The page that explains the code. */
  get url(): string {
    return `https://github.com/claudemesh/claudemesh/blob/main/docs/errors/${this.code}.md`;
  }
}
