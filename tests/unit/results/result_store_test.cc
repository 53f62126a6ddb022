#include "worker/queue/results/result_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "shared/base/fd.h"
#include "worker/queue/results/folder_store.h"
#include "worker/queue/results/result_threads.h"
#include "worker/queue/results/s3_store.h"
#include "worker/queue/results/sha256.h"

namespace penstock::queue {
namespace {

class ResultStoreTest : public testing::Test {
 protected:
  ResultStoreTest() {
    char folder[] = "/tmp/penstock-results-XXXXXX";
    folder_ = ::mkdtemp(folder);
    std::filesystem::create_directory(folder_ + "/shared");
    store_ = *FolderStore::open(folder_ + "/shared");
  }
  ~ResultStoreTest() override { std::filesystem::remove_all(folder_); }

  Fd file_of(const std::string& text) const {
    const std::string path = folder_ + "/from";
    std::ofstream(path, std::ios::binary) << text;
    return Fd(::open(path.c_str(), O_RDONLY));
  }
  StoredResult put(const std::string& name, const std::string& text) {
    const Fd file = file_of(text);
    auto result = store_->put(name, file.get());
    EXPECT_TRUE(result) << result.error().message;
    return *result;
  }
  Status get(const StoredResult& result, std::string& text) {
    const std::string path = folder_ + "/into";
    const Fd into(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600));
    const Status got = store_->get(result, into.get());
    std::ifstream in(path, std::ios::binary);
    text.assign(std::istreambuf_iterator<char>(in), {});
    return got;
  }
  std::string part(const std::string& name, uint64_t first, uint64_t bytes) {
    std::string text;
    const Status read = store_->read(name, first, bytes, [&](std::string_view more) {
      text.append(more);
      return true;
    });
    return read ? text : "kind " + std::to_string(static_cast<int>(read.error().kind));
  }
  std::string shared(const std::string& name) const { return folder_ + "/shared/" + name; }

  std::string folder_;
  std::unique_ptr<ResultStore> store_;
};

TEST_F(ResultStoreTest, WhatIsPutIsThereForAll) {
  const std::string text = std::string(700'000, 'x') + "end";
  const StoredResult result = put("job_1.7", text);
  EXPECT_EQ(result.bytes, text.size());
  EXPECT_EQ(result.sha256, Sha256::of(text));
  std::string got;
  ASSERT_TRUE(get(result, got));
  EXPECT_EQ(got, text);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_ + "/shared"), {}), 1);
}

TEST_F(ResultStoreTest, AnEmptyResultIsOne) {
  const StoredResult result = put("empty", "");
  std::string got = "x";
  ASSERT_TRUE(get(result, got));
  EXPECT_EQ(got, "");
}

TEST_F(ResultStoreTest, APartIsRead) {
  put("a", "0123456789");
  EXPECT_EQ(part("a", 0, 10), "0123456789");
  EXPECT_EQ(part("a", 3, 4), "3456");
  EXPECT_EQ(part("a", 3, 0), "");
  const std::string gone = "kind " + std::to_string(static_cast<int>(ErrorKind::kGone));
  EXPECT_EQ(part("a", 8, 4), gone) << "it ends before";
  EXPECT_EQ(part("b", 0, 1), gone);
}

TEST_F(ResultStoreTest, WhatIsNotWhatWasPutIsNoResult) {
  const StoredResult result = put("a", "0123456789");
  std::ofstream(shared("a")) << "0123456780";
  std::string got;
  const Status status = get(result, got);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind, ErrorKind::kCorrupt);
  std::filesystem::resize_file(shared("a"), 5);
  EXPECT_EQ(get(result, got).error().kind, ErrorKind::kGone);
}

TEST_F(ResultStoreTest, WhatIsRemovedIsGone) {
  const StoredResult result = put("a", "text");
  EXPECT_TRUE(store_->remove("a"));
  EXPECT_TRUE(store_->remove("a")) << "it is removed already";
  std::string got;
  EXPECT_EQ(get(result, got).error().kind, ErrorKind::kGone);
}

TEST_F(ResultStoreTest, NamesAreNoWaysOut) {
  const Fd file = file_of("text");
  for (const std::string& name :
       {std::string(), std::string("a/b"), std::string(".."), std::string(".a"), std::string("a b"),
        std::string("a\0b", 3), std::string(201, 'a')}) {
    EXPECT_FALSE(store_->put(name, file.get())) << name;
    EXPECT_FALSE(store_->remove(name)) << name;
    EXPECT_EQ(part(name, 0, 1), "kind 0") << name;
  }
}

TEST_F(ResultStoreTest, WhatCannotBeWrittenIsNotThere) {
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const Fd file = file_of(std::string(100'000, 'x'));
  const rlimit small{50'000, before.rlim_max};
  ::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &small);
  const auto result = store_->put("a", file.get());
  ::setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_FALSE(result);
  EXPECT_TRUE(std::filesystem::is_empty(folder_ + "/shared")) << "not even in part";
}

TEST_F(ResultStoreTest, WhatAKilledHostHadBegunIsRemovedAfterADay) {
  const auto make = [&](const std::string& name, int hours) {
    std::ofstream(shared(name)) << "half";
    std::filesystem::last_write_time(
        shared(name), std::filesystem::file_time_type::clock::now() - std::chrono::hours(hours));
  };
  make(".job_1.7.123", 25);
  make(".job_2.7.123", 23);          // it may be under way
  make("job_3.7", 25);               // a result
  make(".nfs00000000000000ab", 25);  // another's
  make(".job_4.7.123.mine", 25);
  put("job_5.7", "text");
  for (const auto& [name, there] : {std::pair{".job_1.7.123", false},
                                    {".job_2.7.123", true},
                                    {"job_3.7", true},
                                    {".nfs00000000000000ab", true},
                                    {".job_4.7.123.mine", true},
                                    {"job_5.7", true}}) {
    EXPECT_EQ(std::filesystem::exists(shared(name)), there) << name;
  }
}

TEST_F(ResultStoreTest, TheLoopWaitsForNone) {
  std::vector<std::unique_ptr<ResultStore>> stores;
  stores.push_back(std::move(store_));
  stores.push_back(*FolderStore::open(folder_ + "/shared"));
  ResultThreads threads(std::move(stores));
  const std::thread::id loop = std::this_thread::get_id();
  const Fd file = file_of("text");
  int done = 0;
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(threads.ask([&, i](ResultStore& store) -> ResultThreads::Then {
      EXPECT_NE(std::this_thread::get_id(), loop);
      const bool put = static_cast<bool>(store.put("a" + std::to_string(i), file.get()));
      return [&, put] {
        EXPECT_EQ(std::this_thread::get_id(), loop);
        done += put ? 1 : 0;
      };
    }));
  }
  while (done < 20) {
    pollfd ready{threads.event_fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&ready, 1, 10'000), 1);
    threads.run_done();
  }
}

TEST(S3StoreTest, AServerThatIsNotThereIsBusy) {
  S3Store store({.url = "http://127.0.0.1:1",
                 .bucket = "b",
                 .prefix = "",
                 .key = {"id", "secret", "us-east-1"},
                 .pause_ms = 1});
  const Status removed = store.remove("a");
  ASSERT_FALSE(removed);
  EXPECT_EQ(removed.error().kind, ErrorKind::kBusy);
  EXPECT_TRUE(removed.error().message.starts_with("DELETE http://127.0.0.1:1/b/a: "))
      << removed.error().message;
}

}  // namespace
}  // namespace penstock::queue
