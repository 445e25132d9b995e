package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"git.eeqj.de/sneak/vaultik/cmd/vaultik/daemon"
	"git.eeqj.de/sneak/vaultik/cmd/vaultik/ui"
	"git.eeqj.de/sneak/vaultik/fs/fusefs"
)

// mounted says what is where.
func (a *app) mounted(m *fusefs.Mount, what, snapshot, store string, log *daemon.Log) {
	result := struct {
		Type       string `json:"message_type"`
		Snapshot   string `json:"snapshot,omitempty"` // none: the whole store
		Store      string `json:"store"`
		Mountpoint string `json:"mountpoint"`
		Log        string `json:"log,omitempty"`
	}{Type: "mounted", Snapshot: snapshot, Store: store, Mountpoint: m.Dir()}
	a.ui.Say("%s is mounted on %s", what, ui.Quote(m.Dir()))
	switch {
	case log != nil:
		result.Log = log.Path()
		a.ui.Say("unmount: fusermount3 -u %s; what goes wrong is written to %s", ui.ShellQuote(m.Dir()), ui.Quote(log.Path()))
	case a.env(daemon.Variable) != "":
		a.ui.Say("unmount: fusermount3 -u %s", ui.ShellQuote(m.Dir()))
	default:
		a.ui.Say("unmount with ctrl-C, or: fusermount3 -u %s", ui.ShellQuote(m.Dir()))
	}
	a.ui.Result(result)
}

// serve waits for the end of the mount, by whomever. Being told to stop while
// somebody is inside, it waits until they have left; a second signal makes it
// give up and leave the mount behind, dead. It never lets go of a mount that
// is in use: in its place an empty folder would appear, and whoever mirrors
// that deletes everything.
func (a *app) serve(ctx context.Context, m *fusefs.Mount, terminal bool) error {
	ended := make(chan error, 1)
	go func() { ended <- m.Wait() }()
	looking := a.lookAgainOnHangup(ctx, m, terminal)
	defer looking.stop()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	a.ui.EndLine()
	again := make(chan os.Signal, 1)
	signal.Notify(again, looking.endings()...)
	defer signal.Stop(again)
	told := false
	for {
		err := m.Unmount()
		if !errors.Is(err, fusefs.ErrBusy) {
			return err
		}
		if !told {
			a.ui.Warn("%v; waiting for that to end, interrupt once more to give up", err)
			told = true
		}
		select {
		case err := <-ended:
			return err
		case <-again:
			return err
		case <-time.After(time.Second):
		}
	}
}

// hangups is who looks for new snapshots when SIGHUP arrives.
type hangups struct {
	signals chan os.Signal
	cancel  context.CancelFunc
	wait    sync.WaitGroup
}

// lookAgainOnHangup makes SIGHUP look for new snapshots, as it makes daemons
// read their files anew. Where there is a terminal, SIGHUP says that it closes,
// and ends the mount, unless nohup(1) had it ignored.
func (a *app) lookAgainOnHangup(ctx context.Context, m *fusefs.Mount, terminal bool) *hangups {
	h := &hangups{}
	ctx, h.cancel = context.WithCancel(ctx)
	if terminal {
		return h
	}
	h.signals = make(chan os.Signal, 1)
	signal.Ignore(syscall.SIGHUP) // for those who took it for an end
	signal.Notify(h.signals, syscall.SIGHUP)
	h.wait.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-h.signals:
			}
			if err := m.Refresh(ctx); err != nil && ctx.Err() == nil {
				a.ui.Warn("look for new snapshots: %v", err)
			}
		}
	})
	return h
}

// endings are the signals that end the mount.
func (h *hangups) endings() []os.Signal {
	if h.signals != nil {
		return []os.Signal{os.Interrupt, syscall.SIGTERM}
	}
	return endings()
}

func (h *hangups) stop() {
	if h.signals != nil {
		signal.Stop(h.signals)
	}
	h.cancel()
	h.wait.Wait()
}
