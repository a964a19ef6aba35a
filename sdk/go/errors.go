package claudemesh

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/claudemesh/claudemesh/sdk/go/gen/claudemesh/v1"
)

//go:generate go run gen_errors.go

const pagesURL = "https://github.com/claudemesh/claudemesh/blob/main/docs/errors/"

// Code is the stable name of a failure, such as unknown_peer. Each is an error,
// so that errors.Is(err, claudemesh.ErrUnknownPeer) tells whether err has it.
type Code string

// Error gives the name.
func (c Code) Error() string { return string(c) }

type entry struct {
	grpc      codes.Code
	retryable bool
}

// Error is what every call of this package fails with; errors.As finds it.
// status.Code and status.FromError of grpc-go work on it.
type Error struct {
	// Code is the stable name. A daemon of a later version may give one that this
	// package does not know.
	Code Code
	// Message says what happened and what to do next, for people. Not stable.
	Message string
	// Metadata holds facts about this failure by stable names.
	Metadata map[string]string
	// Candidates are the members that a destination may have meant.
	Candidates []*pb.Candidate
	// FieldViolations are the fields of the request that are wrong.
	FieldViolations []*pb.FieldViolation
	// Retryable says that the same call, under the same id, can succeed later.
	Retryable bool
	// RetryAfter is how long to wait before that; 0 leaves it to the caller.
	RetryAfter time.Duration
	// GRPCCode is the status that a unary call ends with for this failure.
	GRPCCode codes.Code
	// ClientMessageID is the id of the send that failed; empty for other calls.
	ClientMessageID string
	// URL is the page that explains the code.
	URL string

	cause  error
	status *status.Status
}

// Error gives the message and the code.
func (e *Error) Error() string {
	return fmt.Sprintf("claudemesh: %s (%s)", e.Message, e.Code)
}

// Is tells whether target is this error's [Code].
func (e *Error) Is(target error) bool {
	code, ok := target.(Code)
	return ok && code == e.Code
}

// Unwrap gives the context's error when a context ended the call, and what
// grpc-go said when there was no connection.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus gives the status as the daemon sent it, or one like it.
func (e *Error) GRPCStatus() *status.Status {
	if e.status != nil {
		return e.status
	}
	s := status.New(e.GRPCCode, e.Message)
	detailed, err := s.WithDetails(&errdetails.ErrorInfo{Reason: string(e.Code), Domain: "claudemesh", Metadata: e.Metadata})
	if err != nil {
		return s
	}
	return detailed
}

func newError(code Code, format string, args ...any) *Error {
	known := table[code]
	e := &Error{Code: code, Message: fmt.Sprintf(format, args...), Retryable: known.retryable, GRPCCode: known.grpc}
	return e.complete()
}

func (e *Error) because(cause error) *Error {
	if e.cause != nil {
		cause = errors.Join(cause, e.cause)
	}
	e.cause = cause
	return e
}

// invalid refuses the value of one field.
func invalid(field, format string, args ...any) *Error {
	description := fmt.Sprintf(format, args...)
	e := newError(ErrInvalidArgument, "`%s`: %s", field, description)
	e.FieldViolations = []*pb.FieldViolation{{Field: field, Description: description}}
	return e
}

func (e *Error) complete() *Error {
	e.URL = pagesURL + string(e.Code) + ".md"
	if e.ClientMessageID == "" {
		e.ClientMessageID = e.Metadata["client_message_id"]
	}
	return e
}

// fromDetail reads the failure of one send of a stream.
func fromDetail(detail *pb.ErrorDetail) *Error {
	e := &Error{
		Code:            Code(detail.GetCode()),
		Message:         detail.GetMessage(),
		Metadata:        detail.GetMetadata(),
		Candidates:      detail.GetCandidates(),
		FieldViolations: detail.GetFieldViolations(),
		Retryable:       detail.GetRetryable(),
		RetryAfter:      time.Duration(detail.GetRetryAfterMs()) * time.Millisecond,
		GRPCCode:        codes.Code(detail.GetGrpcCode()),
	}
	return e.complete()
}

// fromRPC reads the failure of a call.
func fromRPC(err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	s := status.Convert(err)
	e := &Error{Message: s.Message(), GRPCCode: s.Code(), status: s}
	for _, detail := range s.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			e.Code, e.Metadata = Code(detail.GetReason()), detail.GetMetadata()
		case *errdetails.RetryInfo:
			e.Retryable, e.RetryAfter = true, delay(detail.GetRetryDelay())
		case *errdetails.BadRequest:
			for _, field := range detail.GetFieldViolations() {
				e.FieldViolations = append(e.FieldViolations,
					&pb.FieldViolation{Field: field.GetField(), Description: field.GetDescription()})
			}
		case *pb.Candidates:
			e.Candidates = detail.GetCandidates()
		}
	}
	if e.Code == "" {
		e.Code = codeOf(s.Code())
	}
	e.Retryable = e.Retryable || table[e.Code].retryable
	return e.complete()
}

func delay(d *durationpb.Duration) time.Duration { return max(0, d.AsDuration()) }

// codeOf names a status that came without a code: from the transport, or from
// something that is no daemon.
func codeOf(code codes.Code) Code {
	switch code {
	case codes.Unavailable:
		return ErrDaemonNotRunning
	case codes.DeadlineExceeded:
		return ErrDeadlineExceeded
	case codes.Canceled:
		return ErrCancelled
	case codes.Unimplemented:
		return ErrNotServed
	case codes.Unauthenticated:
		return ErrUnauthenticated
	case codes.PermissionDenied:
		return ErrPermissionDenied
	case codes.InvalidArgument:
		return ErrInvalidArgument
	case codes.ResourceExhausted, codes.OutOfRange:
		return ErrPayloadTooLarge
	default:
		return ErrInternalError
	}
}

// lost tells that the failure is the transport's: nobody knows what became of
// the call.
func (e *Error) lost() bool {
	return e.Code == ErrDaemonNotRunning && e.GRPCCode == codes.Unavailable
}

// known refuses values of an enum that this version has no name for.
func known[E protoreflect.Enum](field string, values ...E) *Error {
	for _, value := range values {
		if value.Descriptor().Values().ByNumber(value.Number()) == nil {
			return invalid(field, "%d is no %s", value.Number(), value.Descriptor().Name())
		}
	}
	return nil
}

func noContext() *Error { return invalid("ctx", "must not be nil") }

// texts refuses what no message can hold; it takes names and values in turn.
func texts(pairs ...string) *Error {
	for i := 0; i < len(pairs); i += 2 {
		if !utf8.ValidString(pairs[i+1]) {
			return invalid(pairs[i], "%.40q is not UTF-8", pairs[i+1])
		}
	}
	return nil
}

// fromContext says why ctx ended a call.
func fromContext(ctx context.Context) *Error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return newError(ErrCancelled, "the caller gave up").because(ctx.Err())
	}
	return newError(ErrDeadlineExceeded, "the daemon did not answer in time; whether it did what was asked is not known").
		because(ctx.Err())
}
