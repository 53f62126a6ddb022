// Event streams: what is told of a job as it happens, as server-sent events or WebSocket messages.
//
// Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html. A WebSocket
// (RFC 6455) carries the same as one text message each: {"event":…,"id":…,"data":…}; the edge has
// shaken hands and takes what comes from the client.
//
// An event's id tells how far the stream has come: which run of the job, and how much of its
// answer. A client that comes back with it as Last-Event-ID goes on from there, or from the
// beginning of the present run if the job was started anew meanwhile. The last event's id is "end".
// A client that comes back with that, as browsers do by themselves, has seen all and is told so
// (204).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::queue {

struct EventId {
  uint64_t run = 0;     // when it started, ms since 1970, or as shared_run(); 0: it has not
  uint64_t offset = 0;  // bytes of its answer that have been told
  bool ended = false;   // it was the last
};
std::string format(const EventId& id);
// Reads an id. Empty text is {0, 0}. Nothing: the text is no event's id.
std::optional<EventId> parse_event_id(std::string_view text) noexcept;

// The run of a job that hosts share, by which all of them know it: of which taking (0: none), and
// how often it has begun anew since on the host that took it.
constexpr uint64_t shared_run(uint64_t fence, uint8_t restarts) noexcept {
  return fence << 8U | restarts;
}

// All of these append one CHUNK frame of the caller's request `frame_id`.
struct EventStream {
  std::string& out;
  uint64_t frame_id;
  bool websocket;

  void begin() const;  // how soon a browser should come back
  void event(std::string_view name, const EventId& id, std::string_view json) const;
  // One that nobody comes back with.
  void event(std::string_view name, std::string_view json) const;
  void keep_alive() const;
  void end() const;

 private:
  void say(std::string_view name, std::string_view id, std::string_view json) const;
};

// The data of a `chunk` event: where in the answer, and the text.
std::string chunk_json(uint64_t offset, std::string_view text);

}  // namespace penstock::queue
