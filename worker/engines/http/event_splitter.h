// EventSplitter: cuts an answer that streams into its events, wherever the reads cut it.
//
// A server-sent event (WHATWG HTML, 9.2) ends with an empty line; lines end with LF, CRLF or CR. In
// JSON lines, each line is an event. The listener gets each event whole, and its bytes as they
// came: all bytes that are fed come out again, once, in their order.
//
// An event is held until it is whole, up to kMaxHeldBytes. Of a longer one the bytes pass as they
// come, and nobody learns what it says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace penstock::http_engine {

struct Event {
  std::string_view bytes;  // as they came, line ends included
  std::string_view data;   // its data lines, joined with LF; of JSON lines the line
  std::string_view type;   // its event field
  bool is_error = false;   // `data` is of a field called error, as some servers write
  bool has_data = false;   // else it is a comment, an empty line, or nothing that counts
  bool whole = true;       // false: a part of one that is too long to be held
};

class EventSplitter {
 public:
  static constexpr size_t kMaxHeldBytes = 64U << 10;
  enum class Format : uint8_t { kEvents, kLines };

  class Listener {
   public:
    virtual ~Listener() = default;
    // The views are valid during the call. False: it wants no more; nothing more is told.
    virtual bool on_event(const Event& event) = 0;
  };

  EventSplitter(Format format, Listener& listener) : format_(format), listener_(listener) {}

  // False: the listener wants no more, and what was not told is dropped.
  bool feed(std::string_view bytes);
  // The answer is over: what is held is the last event, also without its empty line.
  bool end();
  // Bytes of an event that is not whole yet.
  size_t held() const { return held_.size(); }

 private:
  void end_line();
  void take_field(std::string_view line);
  bool tell();
  bool tell_part();

  const Format format_;
  Listener& listener_;
  std::string held_;        // the bytes of this event so far, without those that passed
  size_t line_from_ = 0;    // in held_: where its present line begins
  bool line_long_ = false;  // the beginning of this line has passed
  bool line_empty_ = true;  // no byte of it came
  bool passing_ = false;    // a part of this event has passed
  bool after_cr_ = false;   // an LF belongs to the line before
  bool first_line_ = true;  // of the answer: may begin with a BOM
  bool over_ = false;       // the listener wants no more
  bool has_data_ = false;
  bool is_error_ = false;
  std::string data_;
  std::string type_;
};

}  // namespace penstock::http_engine
