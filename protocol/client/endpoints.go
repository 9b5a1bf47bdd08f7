package client

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
)

// learntMax bounds what a node can make the client remember.
const learntMax = 64

// endpoints are the places a node may be found at.
type endpoints struct {
	mu         sync.Mutex
	configured []string
	learnt     []string // from the newest hello or goaway
}

func newEndpoints(list []string) (*endpoints, error) {
	e := &endpoints{}
	for _, s := range list {
		p, err := parseEndpoint(s)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(e.configured, p) {
			e.configured = append(e.configured, p)
		}
	}
	return e, nil
}

// learn replaces what earlier nodes named. A node reached over TLS can't send
// the client, and its token, to a place without it.
func (e *endpoints) learn(from string, list []string) {
	secure := strings.HasPrefix(from, "wss:")
	var learnt []string
	for _, s := range list {
		p, err := parseEndpoint(s)
		if err != nil || secure && !strings.HasPrefix(p, "wss:") || len(learnt) == learntMax {
			continue
		}
		if !slices.Contains(e.configured, p) && !slices.Contains(learnt, p) {
			learnt = append(learnt, p)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.learnt = learnt
}

// inOrder returns the configured endpoints first, as they were given.
func (e *endpoints) inOrder() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Concat(e.configured, e.learnt)
}

// shuffled returns all endpoints at random, so that the clients of a lost node
// spread over the others, with the one to avoid last.
func (e *endpoints) shuffled(avoid string) []string {
	list := e.inOrder()
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	if i := slices.Index(list, avoid); i >= 0 {
		list = append(slices.Delete(list, i, i+1), avoid)
	}
	return list
}

// others returns all endpoints but one.
func (e *endpoints) others(than string) []string {
	return slices.DeleteFunc(e.shuffled(than), func(s string) bool { return s == than })
}
