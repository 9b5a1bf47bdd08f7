package api

import "github.com/stockmesh/stockmesh/protocol"

// fieldDoc is what the documents say about a field beyond its type.
type fieldDoc struct {
	text      string
	bytes     int   // of a string, at most
	low, high int64 // of an integer; high alone: entries of an array, at most
	values    []string
}

// fieldDocs is keyed by field, or by "Type.field" where one differs.
func fieldDocs() map[string]fieldDoc {
	const name = protocol.NameBytesMax
	const most = protocol.QuantityMax
	const selectors = protocol.SelectorsMax
	return map[string]fieldDoc{
		"sku":      {text: "1 to 128 bytes of UTF-8 without control characters, compared byte by byte.", bytes: name},
		"location": {text: `As a SKU; "main" where none is named.`, bytes: name},

		"available":  {text: "max(0, on_hand - reserved - safety stock + backorder limit)."},
		"on_hand":    {text: "Units on hand; negative: sold on backorder and still owed.", low: -most, high: most},
		"reserved":   {text: "Units held by live reservations.", high: most},
		"version":    {text: `Row version per region, "eu:12,us:4"; "" while the item does not exist.`},
		"updated_at": {text: "When the item last changed."},
		"low":        {text: "available is at or below low_stock."},

		"key":       {text: "Idempotency key: of the client's making, the same for every retry.", bytes: name},
		"home":      {text: "The region a retried write was first sent to."},
		"reason":    {text: "Kept in the movement.", bytes: name},
		"reference": {text: "Kept in the movement.", bytes: name},

		"op":              {text: "The command or push."},
		"id":              {text: "A number or string, echoed in the reply."},
		"traceparent":     {text: "Where the command belongs in its caller's trace (W3C Trace Context); a malformed one is as none."},
		"delta":           {text: "Units to add, or to remove if negative; not 0.", low: -most, high: most},
		"if_version":      {text: `Only if this is the item's version; "": only if it does not exist yet.`},
		"lines":           {text: "What to take; lines of the same item are summed.", high: protocol.LinesMax},
		"quantity":        {text: "Units.", low: 1, high: most},
		"ttl_ms":          {text: "How long to hold from now; 600,000 where reserve names none.", low: protocol.ReserveMSMin, high: protocol.ReserveMSMax},
		"user":            {text: "Whose reservation it is.", bytes: name},
		"reservation":     {text: "The reservation."},
		"from":            {text: "The location that gives.", bytes: name},
		"to":              {text: "The location that takes.", bytes: name},
		"safety_stock":    {text: "Units never offered.", high: most},
		"backorder_limit": {text: "Units that may be sold beyond what is on hand.", high: most},
		"low_stock":       {text: "An item is low while available is at or below it.", high: most},

		"skus":        {text: "SKUs by name.", bytes: name, high: selectors},
		"prefixes":    {text: "SKUs by how they begin.", bytes: name, high: selectors},
		"all":         {text: "Every SKU."},
		"locations":   {text: "Only these locations.", bytes: name, high: selectors},
		"users":       {text: "Reservations of these users.", bytes: name, high: selectors},
		"since":       {text: "A cursor: only what has changed after it."},
		"have":        {text: "Versions that need not be sent again.", high: selectors},
		"interval_ms": {text: "Least time between pushes of one item; 0: at once.", high: protocol.IntervalMSMax},
		"at_least":    {text: "A version: wait up to a second until the node has it."},
		"region":      {text: "A region's name; the node's own where none is named."},
		"limit":       {text: "Movements at most.", low: 1, high: protocol.HistoryMax},
		"before":      {text: "The next of an earlier page."},
		"token":       {text: "A JWT."},

		"CountCommand.on_hand": {text: "Units counted.", high: most},
		"GetCommand.skus":      {text: "SKUs by name.", bytes: name, high: protocol.PageMax},

		"item":          {text: "The item afterwards."},
		"items":         {text: "Items."},
		"behind":        {text: "The node did not reach at_least in time."},
		"next":          {text: `Where the next page begins; "": there is none.`},
		"cursor":        {text: "Everything up to here has been delivered."},
		"movements":     {text: "Newest first."},
		"known":         {text: "The key was applied within its window."},
		"reply":         {text: "What was answered then."},
		"ok":            {text: "The command's ok object."},
		"error":         {text: "Why the command was refused."},
		"replayed":      {text: "The key had been applied before."},
		"results":       {text: "One per command, in their order."},
		"subject":       {text: "Who did it, as the token says."},
		"expires_at":    {text: "When it ends."},
		"address":       {text: "Where they asked from, without port."},
		"sequence":      {text: "region.shard.log sequence.index"},
		"at":            {text: "When it was decided."},
		"on_hand_delta": {text: "Change of on_hand."},
		"reserved_delta": {
			text: "Change of reserved."},

		"SubscribedReply.items": {text: "Snapshot items sent before this reply."},
		"StockPush.snapshot":    {text: "The subscription is still being filled."},
		"Reservation.id":        {text: "The part before the first dot is the home region."},
		"Reservation.state":     {text: "Where the reservation stands."},
		"Details.state":         {text: "reservation_ended: how."},
		"Details.lines":         {text: "insufficient_stock: what is missing."},
		"Details.item":          {text: "version_conflict: the item as it is."},
		"Movement.on_hand":      {text: "This region's, after the movement."},
		"Movement.reserved":     {text: "This region's, after the movement."},
		"Movement.region":       {text: "The region it happened in."},
		"type": {text: "What happened.", values: []string{"adjust", "count", "reserve", "confirm", "release",
			"expire", "extend", "sell", "move", "configure", "grant", "accept"}},

		"requested":      {text: "Units asked for."},
		"elsewhere":      {text: "Units other regions may hold."},
		"outcome":        {text: "The command may have taken effect: resend it with the same key.", values: []string{"unknown"}},
		"code":           {text: "What went wrong."},
		"message":        {text: "The same for people."},
		"retryable":      {text: "Sending the same again may succeed."},
		"retry_after_ms": {text: "When to send it again."},
		"details":        {text: "What a client needs to act on the code."},

		"Problem.type":   {text: "urn:stockmesh:error: and the code."},
		"Problem.title":  {text: "The code for people."},
		"Problem.status": {text: "The HTTP status."},
		"Problem.detail": {text: "The message."},

		"session":       {text: "The connection's name."},
		"node":          {text: "The node's name."},
		"protocol":      {text: "The protocol's version."},
		"heartbeat_ms":  {text: "How often the node pings."},
		"endpoints":     {text: "Nodes that can be connected to."},
		"limits":        {text: "What the node accepts on this connection."},
		"message_bytes": {text: "Bytes of a message."},
		"subscriptions": {text: "Selectors of a connection."},
		"in_flight":     {text: "Unanswered commands of a connection."},
		"deadline_ms":   {text: "When the node closes the connection."},
		"Goaway.reason": {text: "Why."},

		"regions":     {text: "All regions."},
		"name":        {text: "Its name."},
		"lag_ms":      {text: "How old this node's picture of it is."},
		"heard_at":    {text: "When this node last heard of it."},
		"nodes":       {text: "Its nodes."},
		"endpoint":    {text: "Where clients connect."},
		"owner_of":    {text: "The shards it decides for."},
		"connections": {text: "WebSocket connections."},
		"MeshRegion.state": {text: "How it stands.",
			values: []string{"serving", "catching_up", "cut_off"}},
		"MeshNode.state": {text: "How it stands.",
			values: []string{"starting", "catching_up", "serving", "draining", "no_quorum", "down"}},
	}
}
