#include "worker/queue/shared_answers/answer_writer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "shared/redis/answer.h"
#include "worker/queue/shared_order/scripts.h"

namespace penstock::queue {
namespace {

constexpr size_t kChunkBytes = 64U << 10;    // larger ones are sent in pieces
constexpr size_t kMessageBytes = 64U << 10;  // by then a message goes out
constexpr size_t kEntryBytes = 16U << 10;    // likewise an entry
constexpr size_t kMostSentBytes = 4U << 20;  // without an answer
constexpr size_t kEntries = 14;              // in a request: 4 words each, and one
constexpr size_t kRequestBytes = 256U << 10;
constexpr int64_t kAwayNs = 20 * kNsPerMs;  // until it is tried again
constexpr size_t kKeptOverhead = 32;  // bytes of an entry in Redis, besides its parts, roughly
constexpr size_t kFewestKept = 16;

}  // namespace

// A request that is not answered yet.
struct AnswerWriter::Sent {
  AnswerWriter& writer;
  std::shared_ptr<bool> alive;
  size_t bytes = 0;
  size_t parts = 0;  // of a message
  Entries entries;
};

size_t AnswerWriter::size_of(const Entry& entry) noexcept {
  return sizeof entry + entry.id.size() + entry.parts.size();
}

AnswerWriter::AnswerWriter(redis::Servers& servers, std::string key, Settings settings)
    : servers_(servers), key_(std::move(key)), settings_(settings) {}

AnswerWriter::~AnswerWriter() { *alive_ = false; }

// ---- what is said

void AnswerWriter::begin(std::string_view id, uint64_t fence, std::string_view home, bool resumable,
                         std::string_view bytes) {
  Job& job = jobs_[std::string(id)];
  job = Job();
  job.fence = fence;
  job.home = home;
  job.resumable = resumable;
  say(id, job, Part::Kind::kBegun, bytes);
}

void AnswerWriter::say(std::string_view id, Part::Kind kind, std::string_view bytes) {
  const auto job = jobs_.find(std::string(id));
  if (job == jobs_.end()) {
    return;
  }
  for (; kind == Part::Kind::kChunk && bytes.size() > kChunkBytes;
       bytes.remove_prefix(kChunkBytes)) {
    say(id, job->second, kind, bytes.substr(0, kChunkBytes));
  }
  say(id, job->second, kind, bytes);
}

void AnswerWriter::end(std::string_view id, std::string_view bytes) {
  const auto job = jobs_.find(std::string(id));
  if (job == jobs_.end()) {
    return;
  }
  if (const auto first = entries_.find(job->second.open);
      first != entries_.end() && job->second.kept_entries == 1 && job->second.home.empty()) {
    waiting_bytes_ -= size_of(first->second);  // the record of its end has it all
    entries_.erase(first);
    jobs_.erase(job);
    return;
  }
  say(id, job->second, Part::Kind::kEnd, bytes);
  if (const auto message = messages_.find(job->second.home);
      message != messages_.end() && send(message->first, message->second)) {
    messages_.erase(message);
  }
  jobs_.erase(job);
}

void AnswerWriter::say(std::string_view id, Job& job, Part::Kind kind, std::string_view bytes) {
  const Part part{{job.fence, job.next++}, kind, bytes};
  const size_t forms = (job.home.empty() ? 0 : 1) + (job.resumable ? 1 : 0);
  if (waiting_bytes_ + forms * bytes.size() > settings_.most_waiting_bytes) {
    ++counts_.dropped;
    job.open = 0;  // an entry has parts in a row
    return;
  }
  if (!job.home.empty()) {
    publish(id, job, part);
  }
  if (job.resumable) {
    keep(id, job, part);
  }
}

void AnswerWriter::publish(std::string_view id, const Job& job, const Part& part) {
  const auto to = messages_.try_emplace(job.home).first;
  Message& message = to->second;
  const size_t before = message.text.size();
  append_to_message(message.text, id, part);
  ++message.parts;
  waiting_bytes_ += message.text.size() - before;
  if (message.text.size() >= kMessageBytes && send(to->first, message)) {
    messages_.erase(to);
  }
}

void AnswerWriter::keep(std::string_view id, Job& job, const Part& part) {
  auto open = entries_.find(job.open);
  if (open == entries_.end() || open->second.parts.size() >= kEntryBytes) {
    const uint64_t mean = job.kept_bytes / std::max<uint64_t>(job.kept_entries, 1);
    job.open = ++opened_;
    open = entries_.emplace_hint(
        entries_.end(), job.open,
        Entry{.id = std::string(id),
              .last = {},
              .most = std::max(settings_.most_stream_bytes / (mean + kKeptOverhead), kFewestKept),
              .due_ns = now_ns_ + settings_.gather_kept_ns,
              .parts = {}});
    ++job.kept_entries;
    waiting_bytes_ += size_of(open->second);
  }
  Entry& entry = open->second;
  const size_t before = entry.parts.size();
  append_to_entry(entry.parts, part);
  entry.last = part.place;
  const size_t more = entry.parts.size() - before;
  job.kept_bytes += more;
  waiting_bytes_ += more;
}

// ---- time

void AnswerWriter::advance_to(int64_t now_ns) {
  now_ns_ = now_ns;
  if (!messages_.empty() && now_ns >= send_ns_) {
    send_ns_ = now_ns + (may_send() ? settings_.gather_ns : kAwayNs);
    send_messages();
  }
  if (is_due(now_ns) && now_ns >= keep_ns_) {
    keep_ns_ = now_ns + (may_send() ? settings_.gather_ns : kAwayNs);
    while (is_due(now_ns) && send_entries(now_ns)) {
    }
  }
}

bool AnswerWriter::is_due(int64_t now_ns) const noexcept {
  return !again_.empty() || (!entries_.empty() && entries_.begin()->second.due_ns <= now_ns);
}

int64_t AnswerWriter::next_event() const noexcept {
  const int64_t entries_ns = !again_.empty()     ? 0
                             : !entries_.empty() ? entries_.begin()->second.due_ns
                                                 : INT64_MAX;
  return std::min(messages_.empty() ? INT64_MAX : send_ns_, std::max(entries_ns, keep_ns_));
}

// ---- requests

bool AnswerWriter::may_send() const noexcept {
  return sent_bytes_ < kMostSentBytes && servers_.ready(key_);
}

bool AnswerWriter::send(const std::string& home, const Message& message) {
  auto sent = std::make_unique<Sent>(Sent{*this, alive_, message.text.size(), message.parts, {}});
  return call(order_script::kSay, std::array<std::string_view, 2>{home, message.text}, sent);
}

void AnswerWriter::send_messages() {
  std::erase_if(messages_,
                [&](const auto& message) { return send(message.first, message.second); });
}

// Of those that are due, as many as a request holds.
bool AnswerWriter::send_entries(int64_t now_ns) {
  if (!may_send()) {
    return false;
  }
  Entries& from = again_.empty() ? entries_ : again_;
  auto sent = std::make_unique<Sent>(Sent{*this, alive_, 0, 0, {}});
  while (!from.empty() && from.begin()->second.due_ns <= now_ns &&
         sent->entries.size() < kEntries && sent->bytes < kRequestBytes) {
    const auto entry = sent->entries.insert(sent->entries.end(), from.extract(from.begin()));
    sent->bytes += size_of(entry->second);
  }
  std::vector<std::string> numbers = {std::to_string(settings_.keep_ms)};
  numbers.reserve(1 + 2 * kEntries);  // they are pointed at
  std::vector<std::string_view> words = {numbers.front()};
  for (const auto& [number, entry] : sent->entries) {
    const std::string_view most = numbers.emplace_back(std::to_string(entry.most));
    const std::string_view place = numbers.emplace_back(entry.last.text());
    words.insert(words.end(), {entry.id, most, place, entry.parts});
  }
  if (call(order_script::kKeep, words, sent)) {
    return true;
  }
  again_.merge(sent->entries);
  return false;
}

bool AnswerWriter::call(redis::Script script, std::span<const std::string_view> words,
                        std::unique_ptr<Sent>& sent) {
  const auto answered = [](void* context, const redisReply* reply) noexcept {
    const std::unique_ptr<Sent> self(static_cast<Sent*>(context));
    if (*self->alive) {
      self->writer.answered(*self, reply);
    }
  };
  if (!may_send() || !servers_.call(script, key_, words, answered, sent.get())) {
    return false;
  }
  sent_bytes_ += sent.release()->bytes;
  return true;
}

void AnswerWriter::answered(Sent& sent, const redisReply* reply) {
  sent_bytes_ -= sent.bytes;
  if (reply == nullptr && !sent.entries.empty()) {
    again_.merge(sent.entries);
    return;
  }
  waiting_bytes_ -= sent.bytes;
  if (reply == nullptr) {
    counts_.unknown += sent.parts;
  } else if (reply->type != REDIS_REPLY_INTEGER) {
    ++counts_.refused;
  } else if (sent.entries.empty()) {
    ++counts_.messages;
    counts_.unheard += reply->integer == 0 ? 1 : 0;
  } else {
    const auto kept = static_cast<uint64_t>(reply->integer);
    counts_.entries += kept;
    counts_.stale += sent.entries.size() - std::min<uint64_t>(kept, sent.entries.size());
  }
}

}  // namespace penstock::queue
