// Package meshtest gives tests a mesh of their own: a broker and a daemon for
// each member, in a temporary directory, which end with the test.
//
//	alice, bob := meshtest.Pair(t)
//	_, err := alice.Send(ctx, "bob", "hi", claudemesh.WaitDelivered())
//	bob.Kill()
//
// It runs the binary that CLAUDEMESH_BIN names, else claudemesh of the path.
package meshtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	claudemesh "github.com/claudemesh/claudemesh/sdk/go"
)

const (
	// How long the mesh may take to start, and to do what it is told.
	limit = time.Minute
	// Of a log that is shown when a test failed.
	shownLog = 4 << 10
)

// Mesh is a mesh on this host.
type Mesh struct {
	// Dir holds everything; it is removed when the test ends.
	Dir string
	// Name is the mesh's name.
	Name string
	// Broker is the broker's URL.
	Broker string

	t       testing.TB
	process *exec.Cmd
	stdin   io.WriteCloser
	answers chan answer
	ended   chan struct{} // closed when the process is no more
	stderr  bytes.Buffer

	mu      sync.Mutex // one command at a time
	last    int
	members map[string]*Member
}

// Member is one member with its daemon, and a client of it.
type Member struct {
	*claudemesh.Mesh

	Name     string
	MemberID string
	// Pubkey is its key: 64 lower-case hex digits.
	Pubkey string
	// Home is its CLAUDEMESH_HOME.
	Home   string
	Socket string
	// Address is its TCP address, host:port. A restart may change it.
	Address   string
	TokenFile string
	// Log is the path of its daemon's log.
	Log string

	mesh *Mesh
}

type member struct {
	Name      string `json:"name"`
	Home      string `json:"home"`
	Sock      string `json:"sock"`
	Address   string `json:"address"`
	TokenFile string `json:"token_file"`
	Pubkey    string `json:"pubkey"`
	MemberID  string `json:"member_id"`
	Log       string `json:"log"`
}

type answer struct {
	Event   string   `json:"event"`
	Dir     string   `json:"dir"`
	Mesh    string   `json:"mesh"`
	Broker  string   `json:"broker"`
	Members []member `json:"members"`

	ID     int     `json:"id"`
	OK     bool    `json:"ok"`
	Member *member `json:"member"`
	Error  struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// Pair gives two members of a new mesh, alice and bob.
func Pair(t testing.TB) (alice, bob *Member) {
	t.Helper()
	mesh := New(t, "alice", "bob")
	return mesh.Member("alice"), mesh.Member("bob")
}

// New starts a mesh with these members, who are connected and know each other.
func New(t testing.TB, members ...string) *Mesh {
	t.Helper()
	return start(t, members)
}

// NewWithClock starts a mesh whose clock can be moved by [Mesh.Advance]. It needs
// libfaketime.
func NewWithClock(t testing.TB, members ...string) *Mesh {
	t.Helper()
	return start(t, members, "--clock")
}

func start(t testing.TB, members []string, flags ...string) *Mesh {
	t.Helper()
	binary := os.Getenv("CLAUDEMESH_BIN")
	if binary == "" {
		binary = "claudemesh"
	}
	arguments := append([]string{"dev", "--json", "--members", strings.Join(members, ",")}, flags...)
	m := &Mesh{
		t: t, process: exec.Command(binary, arguments...),
		answers: make(chan answer, 16), ended: make(chan struct{}), members: map[string]*Member{},
	}
	m.process.Stderr = &m.stderr
	stdout, err := m.process.StdoutPipe()
	if err == nil {
		m.stdin, err = m.process.StdinPipe()
	}
	if err == nil {
		err = m.process.Start()
	}
	if err != nil {
		t.Fatalf("meshtest: %s cannot be started: %v; set CLAUDEMESH_BIN to the daemon's binary", binary, err)
	}
	go m.read(stdout)
	t.Cleanup(m.end)
	ready := m.answer()
	if ready.Event != "ready" {
		t.Fatalf("meshtest: the mesh did not start: %s (%s)", ready.Error.Message, ready.Error.Code)
	}
	m.Dir, m.Name, m.Broker = ready.Dir, ready.Mesh, ready.Broker
	for _, told := range ready.Members {
		m.join(told)
	}
	return m
}

func (m *Mesh) read(stdout io.Reader) {
	defer close(m.ended)
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			_ = m.process.Wait()
			return
		}
		var got answer
		if err := json.Unmarshal(line, &got); err != nil {
			got.Error.Message = fmt.Sprintf("not understood: %s", line)
		}
		m.answers <- got
	}
}

func (m *Mesh) answer() answer {
	m.t.Helper()
	select {
	case got := <-m.answers:
		return got
	case <-m.ended:
		m.t.Fatalf("meshtest: the mesh ended: %s", m.stderr.String())
	case <-time.After(limit):
		m.t.Fatalf("meshtest: no answer for %s", limit)
	}
	panic("unreachable")
}

// end stops everything: the processes end with their standard input.
func (m *Mesh) end() {
	for _, member := range m.members {
		_ = member.Mesh.Close()
		if m.t.Failed() {
			m.t.Logf("log of %s:\n%s", member.Name, tail(member.Log))
		}
	}
	_ = m.stdin.Close()
	select {
	case <-m.ended:
	case <-time.After(limit):
		_ = m.process.Process.Kill()
		<-m.ended
	}
}

func tail(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(content) > shownLog {
		_, content, _ = bytes.Cut(content[len(content)-shownLog:], []byte("\n"))
	}
	return string(content)
}

func (m *Mesh) join(told member) *Member {
	m.t.Helper()
	client, err := claudemesh.Connect(claudemesh.WithSocket(told.Sock))
	if err != nil {
		m.t.Fatalf("meshtest: no client for %s: %v", told.Name, err)
	}
	joined := &Member{Mesh: client, mesh: m}
	joined.know(told)
	m.members[told.Name] = joined
	return joined
}

func (m *Member) know(told member) {
	m.Name, m.MemberID, m.Pubkey, m.Home, m.Log = told.Name, told.MemberID, told.Pubkey, told.Home, told.Log
	m.Socket, m.Address, m.TokenFile = told.Sock, told.Address, told.TokenFile
}

// Member gives a member by its name.
func (m *Mesh) Member(name string) *Member {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	found := m.members[name]
	if found == nil {
		m.t.Fatalf("meshtest: there is no member %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(m.members)), ", "))
	}
	return found
}

// Add lets one more member join.
func (m *Mesh) Add(name string) *Member {
	m.t.Helper()
	told := m.do("add", map[string]any{"member": name})
	if told.Member == nil {
		m.t.Fatalf("meshtest: add of %s told no member", name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.join(*told.Member)
}

// StopBroker ends the broker.
func (m *Mesh) StopBroker() { m.t.Helper(); m.do("broker_stop", nil) }

// StartBroker starts it again, with its port and its database.
func (m *Mesh) StartBroker() { m.t.Helper(); m.do("broker_start", nil) }

// Advance moves the clocks of all processes of the mesh; see [NewWithClock].
func (m *Mesh) Advance(by time.Duration) {
	m.t.Helper()
	m.do("clock", map[string]any{"advance_s": int(by / time.Second)})
}

func (m *Mesh) do(what string, more map[string]any) answer {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	command := map[string]any{"id": m.last, "do": what}
	for name, value := range more {
		command[name] = value
	}
	line, err := json.Marshal(command)
	if err == nil {
		_, err = m.stdin.Write(append(line, '\n'))
	}
	if err != nil {
		m.t.Fatalf("meshtest: %s: %v: %s", what, err, m.stderr.String())
	}
	got := m.answer()
	if !got.OK || got.ID != m.last {
		m.t.Fatalf("meshtest: %s: %s (%s)", what, got.Error.Message, got.Error.Code)
	}
	return got
}

func (m *Member) do(what string) {
	m.mesh.t.Helper()
	if told := m.mesh.do(what, map[string]any{"member": m.Name}); told.Member != nil {
		m.know(*told.Member)
	}
}

// Kill ends the member's daemon with SIGKILL.
func (m *Member) Kill() { m.mesh.t.Helper(); m.do("kill") }

// Stop ends the member's daemon in order.
func (m *Member) Stop() { m.mesh.t.Helper(); m.do("stop") }

// Start starts the member's daemon again, and returns when it serves.
func (m *Member) Start() { m.mesh.t.Helper(); m.do("start") }

// Restart stops the member's daemon in order and starts it again.
func (m *Member) Restart() { m.mesh.t.Helper(); m.do("restart") }

// Pause halts the member's daemon with SIGSTOP.
func (m *Member) Pause() { m.mesh.t.Helper(); m.do("pause") }

// Resume lets it go on.
func (m *Member) Resume() { m.mesh.t.Helper(); m.do("resume") }

// Cut closes the member's link to the broker and refuses new ones until [Member.Mend].
func (m *Member) Cut() { m.mesh.t.Helper(); m.do("cut") }

// Stall keeps the link to the broker open, but lets nothing through until
// [Member.Mend].
func (m *Member) Stall() { m.mesh.t.Helper(); m.do("stall") }

// Mend ends [Member.Cut] and [Member.Stall].
func (m *Member) Mend() { m.mesh.t.Helper(); m.do("mend") }
