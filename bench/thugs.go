package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"time"
)

// thugs are the attackers' process, seen from the scenario.
type thugs struct {
	process *process
	nc      net.Conn
	r       *bufio.Reader
}

func startThugs(ctx context.Context, o orders) (*thugs, error) {
	p, err := startProcess(ctx, os.Stderr, childThugs)
	if err != nil {
		return nil, err
	}
	nc, err := net.DialTimeout("tcp", p.Public, dialTimeout)
	if err == nil {
		err = json.NewEncoder(nc).Encode(&o) // with the newline that ends them
	}
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	t := &thugs{process: p, nc: nc, r: bufio.NewReader(nc)}
	if _, err := t.tally(); err != nil { // they are ready once they answer
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *thugs) attack() error {
	_, err := t.nc.Write([]byte{attackGo})
	return err
}

// pause returns when every attack has ended.
func (t *thugs) pause() (attackTallies, error) { return t.ask(attackPause) }

func (t *thugs) tally() (attackTallies, error) { return t.ask(attackTally) }

func (t *thugs) ask(what byte) (tally attackTallies, err error) {
	if err := t.nc.SetDeadline(time.Now().Add(attackTime)); err != nil {
		return tally, err
	}
	if _, err := t.nc.Write([]byte{what}); err != nil {
		return tally, err
	}
	line, err := t.r.ReadBytes('\n')
	if err != nil {
		return tally, err
	}
	return tally, json.Unmarshal(line, &tally)
}

// close ends the process before the connection, the end of which would end it, too.
func (t *thugs) close() error { return errors.Join(t.process.stop(), t.nc.Close()) }

// sum counts all attacks that were carried through.
func (t *attackTallies) sum() (n int64) {
	for _, k := range t.Done {
		n += k
	}
	return n
}
