package api

import (
	"net/http"

	"github.com/stockmesh/stockmesh/protocol"
)

// write returns the handler of a command that changes something.
func write(op protocol.Op, status int) handler {
	return func(a *API, w http.ResponseWriter, r *request) *protocol.Error {
		c, err := a.readCommand(w, r, op)
		if err != nil {
			return err
		}
		call, err := a.ask(r, *c)
		if err != nil {
			return err
		}
		writeOK(w, status, cacheWrite, call)
		return nil
	}
}

// readCommand puts a command together from path, query, headers and body. What
// is said twice must be said alike.
func (a *API) readCommand(w http.ResponseWriter, r *request, op protocol.Op) (*protocol.Command, *protocol.Error) {
	body, err := a.readBody(w, r, protocol.MessageBytesMax)
	if err != nil {
		return nil, err
	}
	c := new(protocol.Command)
	if err := c.DecodeBody(body); err != nil {
		return nil, err
	}
	if err := r.complete(c, op); err != nil {
		return nil, err
	}
	return c, c.Check()
}

func (r *request) complete(c *protocol.Command, op protocol.Op) *protocol.Error {
	if c.Op != "" && c.Op != op {
		return protocol.BadRequest("the body says op %.40q, the route is %s", string(c.Op), op)
	}
	c.Op, c.ID = op, nil
	key, err := r.idempotencyKey()
	if err != nil {
		return err
	}
	var location string
	if op == protocol.OpConfigure {
		if location, err = r.one("location"); err != nil {
			return err
		}
	}
	for _, f := range [...]struct {
		source, value string
		field         *string
	}{
		{"Idempotency-Key", key, &c.Key},
		{"the path's sku", r.params["sku"], &c.SKU},
		{"the path's reservation", r.params["id"], &c.Reservation},
		{"the query's location", location, &c.Location},
	} {
		if err := agree(f.source, f.value, f.field); err != nil {
			return err
		}
	}
	return r.completeIfVersion(c)
}

// agree sets the field from another part of the request, unless the body has
// already said something else.
func agree(source, value string, field *string) *protocol.Error {
	if value == "" {
		return nil
	}
	if *field != "" && *field != value {
		return protocol.BadRequest("%s is %.140q, the body says %.140q", source, value, *field)
	}
	*field = value
	return nil
}

func (r *request) completeIfVersion(c *protocol.Command) *protocol.Error {
	version, err := r.ifMatch()
	if err != nil || version == nil {
		return err
	}
	if c.Op != protocol.OpAdjust && c.Op != protocol.OpCount {
		// Ignored, it would promise a protection that isn't there.
		return protocol.BadRequest("%s takes no If-Match", c.Op)
	}
	if c.IfVersion != nil && *c.IfVersion != *version {
		return protocol.BadRequest("If-Match is %.140q, the body's if_version %.140q", *version, *c.IfVersion)
	}
	c.IfVersion = version
	return nil
}
