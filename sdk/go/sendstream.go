package claudemesh

import (
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/claudemesh/claudemesh/sdk/go/gen/claudemesh/v1"
)

// A stream without use is closed after this time.
const idleLimit = 5 * time.Second

// sender carries all sends of a client over one stream. It holds only what some
// caller waits for.
type sender struct {
	mesh *Mesh

	mu      sync.Mutex
	queue   []*pending          // to be written, in this order
	waiting map[uint32]*pending // written and not answered, by index
	index   uint32              // the last one used
	running bool
	wake    chan struct{}
}

// pending is one send that a caller waits for.
type pending struct {
	request  *pb.SendStreamRequest
	answered chan outcome
	// Its caller has left.
	abandoned bool
}

type outcome struct {
	response *pb.SendResponse
	failure  *Error
}

// submit puts sends in line, in the order given.
func (s *sender) submit(ctx context.Context, requests []*pb.SendRequest) []*pending {
	trace := traceContext(ctx)
	line := make([]*pending, len(requests))
	for i, request := range requests {
		line[i] = &pending{
			request:  &pb.SendStreamRequest{Send: request, TraceContext: trace},
			answered: make(chan outcome, 1),
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, line...)
	if !s.running {
		s.running = true
		go s.run()
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return line
}

// wait gives the answer to a send. When ctx ends first, the send is forgotten
// and not written again.
func (s *sender) wait(ctx context.Context, p *pending) outcome {
	select {
	case got := <-p.answered:
		return got
	default:
	}
	select {
	case got := <-p.answered:
		return got
	case <-ctx.Done():
		s.mu.Lock()
		p.abandoned = true
		if s.waiting[p.request.Index] == p {
			delete(s.waiting, p.request.Index)
		}
		s.mu.Unlock()
		return outcome{failure: s.mesh.explain(ctx, ctx.Err())}
	case <-s.mesh.ctx.Done():
		return outcome{failure: s.mesh.closed()}
	}
}

// run keeps a stream open as long as there is something to send.
func (s *sender) run() {
	var pause pauses
	refused := false
	for !s.rest() {
		answered, err := s.stream()
		if answered {
			pause.reset()
			refused = false
		}
		if err == nil {
			continue
		}
		failure := s.mesh.explain(s.mesh.ctx, err)
		if failure.Code == ErrUnauthenticated && !refused && s.mesh.token.forget() {
			refused = true
			continue
		}
		if !s.mesh.mayRepeat(failure) || !s.mesh.sleep(s.mesh.ctx, pause.next(failure.RetryAfter)) {
			s.fail(failure)
		}
	}
}

// rest puts what is unanswered before the rest, in the order in which it was
// written, and tells whether nothing is left; the sender has stopped then.
func (s *sender) rest() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	again := make([]*pending, 0, len(s.waiting)+len(s.queue))
	for _, p := range s.waiting {
		again = append(again, p)
	}
	last := s.index
	slices.SortFunc(again, func(a, b *pending) int {
		// By age, so that the order outlives an index that begins anew.
		return int(int64(last-b.request.Index) - int64(last-a.request.Index))
	})
	s.queue = slices.DeleteFunc(append(again, s.queue...), func(p *pending) bool { return p.abandoned })
	clear(s.waiting)
	s.running = len(s.queue) > 0
	return !s.running
}

// fail answers everything that waits.
func (s *sender) fail(failure *Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.waiting {
		p.answered <- outcome{failure: failure}
	}
	for _, p := range s.queue {
		p.answered <- outcome{failure: failure}
	}
	clear(s.waiting)
	s.queue = nil
}

// stream writes what is in line to a new stream until that breaks. It ends
// without an error when it had no use for a while.
func (s *sender) stream() (answered bool, err error) {
	ctx, cancel := context.WithCancel(s.mesh.ctx)
	defer cancel()
	stream, err := s.mesh.raw.Messaging.SendStream(ctx, s.mesh.patience())
	if err != nil {
		return false, err
	}
	var any atomic.Bool
	ended := make(chan error, 1)
	go func() {
		for {
			answer, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			any.Store(true)
			s.answer(answer)
		}
	}()
	idle := time.NewTimer(idleLimit)
	defer idle.Stop()
	for {
		if next := s.next(); next != nil {
			if err := stream.Send(next); err == io.EOF {
				// The reason comes to the reader.
				return any.Load(), broken(<-ended)
			} else if err != nil {
				return any.Load(), err
			}
			idle.Reset(idleLimit)
			continue
		}
		select {
		case <-s.wake:
		case err := <-ended:
			return any.Load(), broken(err)
		case <-idle.C:
			if s.busy() {
				idle.Reset(idleLimit)
				continue
			}
			_ = stream.CloseSend()
			select {
			case <-ended:
			case <-s.wake:
			}
			return any.Load(), nil
		}
	}
}

// broken is the error of a stream that was to go on.
func broken(err error) error {
	if err == io.EOF {
		return status.Error(codes.Unavailable, "the daemon ended the stream")
	}
	return err
}

// next takes what is to be written next; nil when there is nothing.
func (s *sender) next() *pb.SendStreamRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 {
		p := s.queue[0]
		s.queue[0] = nil
		s.queue = s.queue[1:]
		if p.abandoned {
			continue
		}
		s.index++
		p.request.Index = s.index
		s.waiting[s.index] = p
		return p.request
	}
	return nil
}

func (s *sender) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)+len(s.waiting) > 0
}

func (s *sender) answer(answer *pb.SendStreamResponse) {
	s.mu.Lock()
	p := s.waiting[answer.GetIndex()]
	delete(s.waiting, answer.GetIndex())
	s.mu.Unlock()
	if p == nil {
		return
	}
	switch result := answer.GetResult().(type) {
	case *pb.SendStreamResponse_Response:
		p.answered <- outcome{response: result.Response}
	case *pb.SendStreamResponse_Error:
		p.answered <- outcome{failure: fromDetail(result.Error)}
	default:
		p.answered <- outcome{failure: newError(ErrInternalError, "the daemon's answer is neither a result nor an error")}
	}
}
