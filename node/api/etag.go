package api

import (
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// An entity tag is an item's version in quotes. A version holds commas, so a list
// of tags can't be taken apart at them.

func etag(version string) string { return `"` + version + `"` }

// parseTags reads a list of entity tags; any stands for "*".
func parseTags(header, list string) (tags []string, any bool, err *protocol.Error) {
	rest := strings.Trim(list, " \t")
	if rest == "*" {
		return nil, true, nil
	}
	for {
		rest = strings.TrimLeft(rest, " \t,")
		if rest == "" {
			return tags, false, nil
		}
		rest = strings.TrimPrefix(rest, "W/")
		var closed bool
		var tag string
		if rest, closed = strings.CutPrefix(rest, `"`); closed {
			tag, rest, closed = strings.Cut(rest, `"`)
		}
		if !closed {
			return nil, false, protocol.BadRequest(`%s must be a version in quotes, such as "eu:12,us:4"`, header)
		}
		tags = append(tags, tag)
	}
}

// ifMatch reads If-Match as if_version, nil if there is none. Exactly one version
// can be demanded: "*" would say nothing about the state the writer has seen.
func (r *request) ifMatch() (*string, *protocol.Error) {
	v, ok, err := r.header("If-Match")
	if err != nil || !ok {
		return nil, err
	}
	if strings.HasPrefix(strings.TrimSpace(v), "W/") {
		return nil, protocol.BadRequest("If-Match needs a strong entity tag, without W/")
	}
	tags, any, err := parseTags("If-Match", v)
	switch {
	case err != nil:
		return nil, err
	case any:
		return nil, protocol.BadRequest(`If-Match: * is not supported: send the version you have seen, in quotes, or "" for an item that must not exist yet`)
	case len(tags) != 1:
		return nil, protocol.BadRequest("If-Match must name exactly one version")
	}
	return &tags[0], nil
}

// noneMatch is a parsed If-None-Match.
type noneMatch struct {
	sent bool
	any  bool
	tags []string
}

func (r *request) ifNoneMatch() (noneMatch, *protocol.Error) {
	values := r.Header.Values("If-None-Match")
	if len(values) == 0 {
		return noneMatch{}, nil
	}
	tags, any, err := parseTags("If-None-Match", strings.Join(values, ","))
	return noneMatch{sent: true, any: any, tags: tags}, err
}

// holds reports whether the client has this version already.
func (m *noneMatch) holds(version string) bool {
	if m.any {
		return version != ""
	}
	for _, t := range m.tags {
		if t == version {
			return true
		}
	}
	return false
}
