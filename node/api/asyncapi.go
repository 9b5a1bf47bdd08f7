package api

import (
	"strconv"

	"github.com/stockmesh/stockmesh/protocol"
)

// push is a message that a node sends unasked.
type push struct {
	op      string
	summary string
	payload any
}

func pushes() []push {
	return []push{
		{"hello", "The first message of a connection", protocol.Hello{}},
		{"stock", "The newest state of items", stockPush{}},
		{"cursor", "How far everything has been delivered", cursorPush{}},
		{"reservation", "A reservation has changed by expiry or by somebody else", reservationPush{}},
		{"goaway", "The node is about to close: connect to another one", protocol.Goaway{}},
	}
}

// asyncAPIDocument describes the WebSocket interface, from the node's side: it
// receives commands and sends replies and pushes.
func asyncAPIDocument() []byte {
	s := newSchemas()
	messages, inChannel, operations := object{}, object{}, object{}
	add := func(name, summary string, payload object) {
		messages[name] = object{"name": name, "summary": summary, "contentType": mediaJSON, "payload": payload}
		inChannel[name] = object{"$ref": "#/components/messages/" + name}
	}
	add("reply", "The one reply to a command", s.of(reply{}))
	for _, op := range sortedOps() {
		name := string(op) + "Command"
		add(name, commandDocs()[op].summary, ref(commandName(op)))
		operations[name] = operation("receive", name)
		if op.Right() != "" {
			operations[name].(object)["security"] = []object{{"$ref": "#/components/securitySchemes/bearer"}}
		}
		operations[name].(object)["reply"] = object{"channel": channelRef(), "messages": []object{messageRef("reply")}}
	}
	for _, p := range pushes() {
		name := p.op + "Push"
		payload := s.of(p.payload)
		s.defs[schemaOf(payload)].(object)["properties"].(object)["op"] = object{"const": p.op}
		add(name, p.summary, payload)
		operations[name] = operation("send", name)
	}
	return protocol.AppendJSON(nil, object{
		"asyncapi": "3.0.0",
		"info": object{
			"title":   "stockmesh",
			"version": strconv.Itoa(protocol.ProtocolVersion),
			"description": "A client message is one command or an array of up to " + strconv.Itoa(protocol.CommandsMax) + "; a node's message is always one object. The same fields travel as CBOR where " + protocol.SubprotocolCBOR + " is agreed on. " + accessText +
				" Until the token is sent, in the Authorization header of the handshake or by auth, only auth and ping are taken.",
		},
		"defaultContentType": mediaJSON,
		"channels": object{"ws": object{
			"address":     "/v1/ws",
			"description": "Subprotocols " + protocol.SubprotocolJSON + " and " + protocol.SubprotocolCBOR + ".",
			"messages":    inChannel,
			"bindings":    object{"ws": object{"method": "GET", "bindingVersion": "0.1.0"}},
		}},
		"operations": operations,
		"components": object{"messages": messages, "schemas": s.defs, "securitySchemes": object{"bearer": bearerScheme()}},
	})
}

func operation(action, message string) object {
	return object{"action": action, "channel": channelRef(), "messages": []object{messageRef(message)}}
}

func channelRef() object { return object{"$ref": "#/channels/ws"} }

func messageRef(name string) object { return object{"$ref": "#/channels/ws/messages/" + name} }

// schemaOf returns the name that a reference made by ref points at.
func schemaOf(reference object) string { return reference["$ref"].(string)[len(schemaPath):] }
