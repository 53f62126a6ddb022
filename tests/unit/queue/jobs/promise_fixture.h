// Sessions as in session_fixture.h, with the real store beneath.
#pragma once

#include <poll.h>

#include <deque>
#include <filesystem>

#include "session_fixture.h"
#include "tests/unit/queue/store/fault_files.h"

namespace penstock::queue {

class PromiseTest : public SessionTest {
 protected:
  PromiseTest() { open(); }
  ~PromiseTest() override {
    store_.reset();
    std::filesystem::remove_all(folder_);
  }

  void open() {
    auto opened = Store::open({.folder = folder_ + "/state", .files = &files_});
    ASSERT_TRUE(opened) << opened.error().message;
    store_ = *std::move(opened);
    dispatcher_.use(*store_);
    intake_.set_secret(store_->secret());
    ASSERT_TRUE(store_->recover([this](JobRecord&& job) { dispatcher_.restore(std::move(job)); },
                                [](const std::string&) {}));
  }

  // Until the store has told all it was asked, and all that was said has arrived.
  void settle() {
    do {
      turn();
      if (store_->pending() > 0) {
        pollfd ready{store_->event_fd(), POLLIN, 0};
        ASSERT_EQ(::poll(&ready, 1, 10'000), 1) << "the store says nothing";
        store_->tell_done();
      }
    } while (store_->pending() > 0);
    turn();
  }
  void submit(Peer& peer, uint64_t id, const wire::Submit& message) {
    peer.send(id, message);
    settle();
  }
  static wire::Submit async(std::string_view body = "{}") {
    wire::Submit message = post(body);
    message.prefer = "respond-async";
    message.jobs_path = "/jobs";
    return message;
  }
  static wire::Submit keyed(wire::Submit message, std::string_view key = "\"k1\"") {
    message.idempotency_key = key;
    return message;
  }

  // A whole reply.
  struct Reply {
    std::string job_id;
    uint64_t status = 0;
    std::string headers;
    std::string file;
    std::string body;
    std::string code;  // of FAILED
    bool promised = false;
    bool duplicate = false;
    bool earlier = false;
    bool done = false;
  };
  static Reply reply(Peer& peer, uint64_t id) {
    Reply reply;
    while (auto frame = peer.next()) {
      EXPECT_EQ(frame->id, id);
      switch (frame->type) {
        case wire::FrameType::kAccepted:
          reply.job_id = frame->as<wire::Accepted>().job_id;
          break;
        case wire::FrameType::kHead: {
          const auto head = frame->as<wire::Head>();
          reply.status = head.status;
          reply.headers = head.headers;
          reply.file = head.file;
          reply.promised = head.promised != 0;
          reply.duplicate = head.duplicate != 0;
          reply.earlier = head.earlier != 0;
          break;
        }
        case wire::FrameType::kChunk:
          reply.body += frame->payload;
          break;
        case wire::FrameType::kDone:
          reply.done = true;
          return reply;
        case wire::FrameType::kFailed:
          reply.status = frame->as<wire::Failed>().status;
          reply.code = frame->as<wire::Failed>().code;
          reply.headers = frame->as<wire::Failed>().headers;
          return reply;
        default:
          break;
      }
    }
    return reply;
  }
  // The same, where the store has more to tell than it can.
  Reply wait_for_reply(Peer& peer, uint64_t id) {
    turn();
    Reply seen = reply(peer, id);
    for (int i = 0; i < 100 && seen.status == 0; ++i) {
      pollfd ready{store_->event_fd(), POLLIN, 0};
      ::poll(&ready, 1, 100);
      store_->tell_done();
      turn();
      seen = reply(peer, id);
    }
    return seen;
  }
  Reply ask(Peer& peer, uint64_t id, const wire::Ask& question) {
    peer.send(id, question);
    settle();
    return reply(peer, id);
  }
  wire::Ask get(std::string_view path, std::string_view query = {}) {
    return {.owner = "Bearer sk-secret",
            .method = "GET",
            .path = paths_.emplace_back(path),
            .query = query};
  }
  Reply get_job(Peer& peer, uint64_t id, const std::string& job, const std::string& part = {}) {
    return ask(peer, id, get("/" + job + part));
  }
  std::string promised(Peer& peer, uint64_t id, const wire::Submit& message = async()) {
    submit(peer, id, message);
    const Reply said = reply(peer, id);
    EXPECT_EQ(said.status, 202U) << said.code;
    return said.job_id;
  }

  // The worker's side.
  static uint64_t take(Peer& device) {
    const auto job = device.next();
    EXPECT_TRUE(job && job->type == wire::FrameType::kSubmit);
    return job ? job->id : 0;
  }
  void answer(Peer& device, uint64_t number, const std::string& text,
              std::string_view type = "text/plain") {
    device.send(number, wire::Head{.status = 200, .content_type = type});
    say(device, number, text);
    device.send(number, wire::Done{3, 4, 5});
    device.send(0, wire::Take{1});
    settle();
  }
  void say(Peer& device, uint64_t number, const std::string& text) {
    std::string chunk;
    wire::append_chunk(chunk, number, text);
    device.send_bytes(chunk);
    turn();
  }
  // The job is done, and its result is large. Its number.
  uint64_t end_with_a_file(Peer& device) {
    const uint64_t number = take(device);
    device.send(number, wire::Head{.status = 200, .content_type = "text/plain"});
    say(device, number, std::string(2 * Store::kInlineBytes, 'x'));
    device.send(number, wire::Done{});
    turn();
    return number;
  }

  std::string folder_ = std::filesystem::temp_directory_path() / ("promise." + random_name());
  FaultFiles files_;
  std::unique_ptr<Store> store_;
  std::deque<std::string> paths_;  // that questions point into

 private:
  static std::string random_name() {
    static JobIdMaker ids;
    return std::string(ids.make(0).view().substr(14));
  }
};

}  // namespace penstock::queue
