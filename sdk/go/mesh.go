// Package claudemesh talks to the claudemesh daemon on this host: it sends
// messages, reads the inbox and follows events of a mesh.
//
//	mesh, err := claudemesh.Connect()
//	if err != nil {
//		return err
//	}
//	defer mesh.Close()
//	sent, err := mesh.Send(ctx, "bob", "the build is green")
//
// A call without a deadline gets one of 10 s. A call that ended because the
// daemon was not available is made again, under the same id, until its deadline.
// Every failure is an [*Error]; errors.Is tells which.
package claudemesh

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	pb "github.com/claudemesh/claudemesh/sdk/go/gen/claudemesh/v1"
)

const (
	// What gRPC takes in each direction.
	maxMessage = 8 << 20
	// A daemon that answers nothing for as long, twice, is gone.
	silence = 10 * time.Second
	// How long a new connection may take to speak.
	connectLimit   = 5 * time.Second
	defaultTimeout = 10 * time.Second
)

// Version is the version of this package, the same as that of the daemon it comes
// with.
const Version = "0.9.0"

// Mesh is a client of one daemon. It is safe for concurrent use, keeps one
// connection, and outlives restarts of the daemon.
type Mesh struct {
	// Topics are the named channels of the mesh.
	Topics Topics

	given   address
	timeout time.Duration
	dial    []grpc.DialOption

	ctx   context.Context // ends on Close
	close context.CancelFunc

	mu   sync.Mutex
	addr address
	conn *grpc.ClientConn // nil until a daemon was found

	raw    Raw
	token  token
	sender sender
	watch  watcher
	// What the daemon of this connection serves; the channel is its lock.
	asking  chan struct{}
	version atomic.Pointer[version]
}

// Raw are the generated clients, on the connection of a [Mesh]. Their calls have
// no deadline of their own, are not repeated, and fail with gRPC statuses.
type Raw struct {
	Messaging pb.MessagingServiceClient
	Inbox     pb.InboxServiceClient
	Events    pb.EventServiceClient
	Peers     pb.PeerServiceClient
	Topics    pb.TopicServiceClient
	Files     pb.FileServiceClient
	Control   pb.ControlServiceClient
}

// Option changes how [Connect] makes a client.
type Option func(*Mesh)

// WithSocket names the daemon's Unix socket.
func WithSocket(path string) Option { return func(m *Mesh) { m.given.socket = path } }

// WithAddress names the daemon's TCP address, host:port. It needs [WithTokenFile]
// or [WithToken].
func WithAddress(hostPort string) Option { return func(m *Mesh) { m.given.tcp = hostPort } }

// WithTokenFile names the file with the token for [WithAddress]: local_token in
// the daemon's directory. It is read at the first call, and again when the token
// is refused.
func WithTokenFile(path string) Option { return func(m *Mesh) { m.given.tokenFile = path } }

// WithToken gives the token for [WithAddress].
func WithToken(token string) Option { return func(m *Mesh) { m.given.token = token } }

// WithMesh names the mesh whose daemon on this host is meant.
func WithMesh(name string) Option { return func(m *Mesh) { m.given.mesh = name } }

// WithTimeout sets the deadline of calls whose context has none. The default is
// 10 s.
func WithTimeout(timeout time.Duration) Option { return func(m *Mesh) { m.timeout = timeout } }

// WithDialOptions adds options of grpc-go, such as interceptors and stats
// handlers.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(m *Mesh) { m.dial = append(m.dial, options...) }
}

// Connect makes a client of the daemon that the options name, or that the
// environment, the working directory and the running daemons tell. It does not
// talk to the daemon and does not fail because none runs: the first call does.
func Connect(options ...Option) (*Mesh, error) {
	m := &Mesh{timeout: defaultTimeout, asking: make(chan struct{}, 1)}
	m.ctx, m.close = context.WithCancel(context.Background())
	for _, option := range options {
		if option == nil {
			m.close()
			return nil, invalid("options", "must not hold nil")
		}
		option(m)
	}
	if m.timeout <= 0 {
		m.close()
		return nil, invalid("timeout", "must be above 0, not %s", m.timeout)
	}
	m.Topics = Topics{m}
	m.sender = sender{mesh: m, waiting: map[uint32]*pending{}, wake: make(chan struct{}, 1)}
	link := link{m}
	m.raw = Raw{
		Messaging: pb.NewMessagingServiceClient(link),
		Inbox:     pb.NewInboxServiceClient(link),
		Events:    pb.NewEventServiceClient(link),
		Peers:     pb.NewPeerServiceClient(link),
		Topics:    pb.NewTopicServiceClient(link),
		Files:     pb.NewFileServiceClient(link),
		Control:   pb.NewControlServiceClient(link),
	}
	if _, err := m.connection(); err != nil && fromRPC(err).Code != ErrDaemonNotRunning {
		m.close()
		return nil, err
	}
	return m, nil
}

// Raw gives the generated clients.
func (m *Mesh) Raw() Raw { return m.raw }

// Close ends streams and the connection. Calls that wait, and later ones, fail
// with client_closed.
func (m *Mesh) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return nil
	}
	m.close()
	if m.conn == nil {
		return nil
	}
	return m.conn.Close()
}

// connection gives the connection to the daemon. While no daemon was found it
// looks again, so that a client can be older than its daemon.
func (m *Mesh) connection() (*grpc.ClientConn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return nil, m.closed()
	}
	if m.conn != nil {
		return m.conn, nil
	}
	addr, err := find(m.given, surroundings{os.Getenv, os.Getwd})
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
		grpc.WithStatsHandler(&m.watch),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: firstPause, Multiplier: 2, Jitter: jitter, MaxDelay: longestPause,
			},
			MinConnectTimeout: connectLimit,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: silence, Timeout: silence}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
	}
	if addr.tcp != "" {
		m.token.value, m.token.file = addr.token, addr.tokenFile
		options = append(options, grpc.WithPerRPCCredentials(&m.token))
	}
	conn, err := grpc.NewClient(addr.target(), append(options, m.dial...)...)
	if err != nil {
		return nil, newError(ErrInvalidArgument, "no connection can be made to %s: %v", addr, err)
	}
	m.addr, m.conn = addr, conn
	return conn, nil
}

// linked tells whether there is a connection now.
func (m *Mesh) linked() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conn != nil && m.conn.GetState() == connectivity.Ready
}

func (m *Mesh) closed() *Error { return newError(ErrClientClosed, "the client is closed") }

// link is the connection as the generated clients use it.
type link struct{ mesh *Mesh }

func (l link) Invoke(ctx context.Context, method string, request, answer any, options ...grpc.CallOption) error {
	conn, err := l.mesh.connection()
	if err != nil {
		return err
	}
	return conn.Invoke(traced(ctx), method, request, answer, options...)
}

func (l link) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, options ...grpc.CallOption) (grpc.ClientStream, error) {
	conn, err := l.mesh.connection()
	if err != nil {
		return nil, err
	}
	return conn.NewStream(traced(ctx), desc, method, options...)
}
