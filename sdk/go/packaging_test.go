package claudemesh_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/sdk/go/meshtest"
)

const program = `package main

import (
	"context"
	"fmt"

	claudemesh "github.com/claudemesh/claudemesh/sdk/go"
)

func main() {
	mesh, err := claudemesh.Connect()
	if err != nil {
		panic(err)
	}
	defer mesh.Close()
	fmt.Println(mesh.Send(context.Background(), "bob", "from outside", claudemesh.WaitDelivered()))
}
`

// The module is fetched by its folder's tag out of a repository, into an empty
// module, and used from there.
func TestTheModuleIsUsedFromOutside(t *testing.T) {
	alice, bob := meshtest.Pair(t)
	repository, outside := t.TempDir(), t.TempDir()
	tag(t, repository)

	cache := strings.TrimSpace(run(t, ".", nil, "go", "env", "GOMODCACHE"))
	proxies := strings.TrimSpace(run(t, ".", nil, "go", "env", "GOPROXY"))
	env := []string{
		// A cache of its own, so that no earlier run is used; what others publish
		// comes out of the common one.
		"GOMODCACHE=" + t.TempDir(), "GOFLAGS=-modcacherw", "GOPROXY=file://" + cache + "/cache/download," + proxies,
		"GOPRIVATE=github.com/claudemesh/*", "GOWORK=off",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=url.file://" + repository + ".insteadOf",
		"GIT_CONFIG_VALUE_0=https://github.com/claudemesh/claudemesh",
		"CLAUDEMESH_DAEMON_SOCK=" + alice.Socket,
	}
	if err := os.WriteFile(filepath.Join(outside, "main.go"), []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, outside, env, "go", "mod", "init", "outside")
	run(t, outside, env, "go", "get", "github.com/claudemesh/claudemesh/sdk/go@v0.9.0")
	output := run(t, outside, env, "go", "run", ".")
	if !strings.Contains(output, "SEND_STATUS_DELIVERED") {
		t.Errorf("it printed %s", output)
	}
	if got := bodies(t, bob, "from outside"); len(got) != 1 {
		t.Errorf("it came %d times", len(got))
	}
	if modules := run(t, outside, env, "go", "list", "-m", "all"); strings.Contains(modules, "honnef.co") {
		t.Errorf("users get the tools too:\n%s", modules)
	}
}

// tag makes a repository with this module, as its files are now, at v0.9.0.
func tag(t *testing.T, repository string) {
	t.Helper()
	for _, name := range strings.Fields(run(t, ".", nil, "git", "ls-files", "--cached", "--others", "--exclude-standard")) {
		content, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			continue // deleted and not committed yet
		}
		to := filepath.Join(repository, "sdk", "go", name)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o700)
		}
		if err == nil {
			err = os.WriteFile(to, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	git := func(arguments ...string) {
		run(t, repository, nil, "git", append([]string{"-c", "user.name=test", "-c", "user.email=test@localhost"}, arguments...)...)
	}
	git("init", "--quiet")
	git("add", "--all")
	git("commit", "--quiet", "--message", "the module")
	git("tag", "sdk/go/v0.9.0")
}

func run(t *testing.T, dir string, env []string, name string, arguments ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), name, arguments...)
	command.Dir, command.Env = dir, append(os.Environ(), env...)
	var complaints strings.Builder
	command.Stderr = &complaints
	output, err := command.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(arguments, " "), err, complaints.String())
	}
	return string(output)
}
