// HostTalk: what the hosts of a queue tell each other of jobs while they run: what these answer,
// and what is asked of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "worker/queue/shared_answers/answer_reader.h"
#include "worker/queue/shared_answers/answer_writer.h"
#include "worker/queue/shared_jobs/job_questions.h"

namespace penstock::queue {

struct HostTalk {
  // As of its parts.
  HostTalk(redis::Servers& servers, redis::Subscription& subscription, const std::string& key,
           JobQuestions::Answers answers)
      : writer(servers, key, {}),
        reader(servers, subscription, key, {}),
        questions(servers, key, std::move(answers)) {}

  // What this host's channel says. False: it is none of this.
  bool on_message(std::string_view text) {
    const bool parts = text.starts_with(kPartsMessage);
    return parts ? (reader.on_message(text), true) : questions.on_message(text);
  }
  void advance_to(int64_t now_ns) {
    reader.advance_to(now_ns);
    writer.advance_to(now_ns);
    questions.advance_to(now_ns);
  }
  int64_t next_event() const noexcept {
    return std::min({writer.next_event(), reader.next_event(), questions.next_event()});
  }

  AnswerWriter writer;
  AnswerReader reader;
  JobQuestions questions;
};

}  // namespace penstock::queue
