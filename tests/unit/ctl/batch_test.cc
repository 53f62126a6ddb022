#include "worker/ctl/batch.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "worker/ctl/edge.h"

namespace penstock::ctl {
namespace {

std::string line(const std::string& id, const std::string& body = R"({"n":1})") {
  return R"({"custom_id":")" + id + R"(","method":"POST","url":"/v1/completions","body":)" + body +
         "}";
}

class BatchTest : public testing::Test {
 protected:
  BatchTest() {
    std::string name = std::filesystem::temp_directory_path() / "batch.XXXXXX";
    folder_ = ::mkdtemp(name.data());
  }
  ~BatchTest() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& text) {
    std::string path = folder_ + "/batch.jsonl";
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  std::string text_of(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  Error refused(const std::string& text) {
    const auto batch = BatchFile::open(write(text));
    EXPECT_FALSE(batch);
    return batch ? Error{} : Error{batch.error().message.substr(folder_.size() + 1)};
  }

  std::string folder_;
};

TEST_F(BatchTest, RequestsAreReadWhenWantedInAnyOrder) {
  auto batch = BatchFile::open(write(line("a") + "\r\n\n" + line("b", "{ \"n\": [2 , 3] }")));
  ASSERT_TRUE(batch) << batch.error().message;
  ASSERT_EQ(batch->size(), 2U);
  EXPECT_EQ(batch->read(1)->body, R"({"n":[2,3]})");
  EXPECT_EQ(batch->read(0)->custom_id, "a");
  EXPECT_EQ(batch->read(0)->url, "/v1/completions");
}

TEST_F(BatchTest, WhatIsWrongIsToldWithItsLine) {
  EXPECT_EQ(refused("").message, "batch.jsonl holds no requests");
  EXPECT_TRUE(refused(line("a") + "\n{").message.starts_with("batch.jsonl:2: is no JSON object"));
  EXPECT_EQ(refused(line("a") + "\n\n" + line("a")).message,
            "batch.jsonl:3: custom_id 'a' is that of line 1, too");
  EXPECT_TRUE(refused(line("")).message.starts_with("batch.jsonl:1: custom_id must be"));
  EXPECT_TRUE(refused(line("a", "[]")).message.ends_with("body must be a JSON object"));
  for (const char* url : {"", "v1", "http://elsewhere/v1", "/v1 HTTP/1.1", "/v1#x", "/v1\\n"}) {
    const std::string text =
        R"({"custom_id":"a","method":"POST","body":{},"url":")" + std::string(url) + "\"}";
    EXPECT_NE(refused(text).message.find("url must be a path"), std::string::npos) << url;
  }
  EXPECT_NE(refused(R"({"custom_id":"a","method":"GET","url":"/","body":{}})").message.find("POST"),
            std::string::npos);
  EXPECT_FALSE(BatchFile::open(folder_ + "/nothing"));
}

TEST_F(BatchTest, AFileFromWindowsIsRead) {
  const std::string mark = "\xEF\xBB\xBF";
  for (const std::string& text : {mark + line("a") + "\r\n" + line("b") + "\r\n",
                                  mark + "\r\n \t\r\n" + line("a") + "\n" + line("b"),
                                  line("a") + "\n" + mark + line("b") + "\n"}) {
    auto batch = BatchFile::open(write(text));
    ASSERT_TRUE(batch) << batch.error().message;
    ASSERT_EQ(batch->size(), 2U);
    EXPECT_EQ(batch->read(0)->custom_id, "a");
    EXPECT_EQ(batch->read(1)->custom_id, "b");
  }
  EXPECT_EQ(refused("\xFF\xFE{\0").message, "batch.jsonl:1: is UTF-16; save it as UTF-8");
}

TEST_F(BatchTest, WhatIsValidJsonGoesOutAsItCame) {
  const std::string body =
      R"({"id":18446744073709551616,"x":1e400,"t":0.70000000000000000001,"user":"me \ud83d"})";
  const auto request = parse_request(line("a", body));
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->body, body);
  EXPECT_NE(result_line(*request, {200, "", body}).find("\"body\":" + body), std::string::npos);
  const auto broken = parse_request(line("a", R"({"n":01})"));
  EXPECT_TRUE(broken.error().message.starts_with("is no JSON object: ")) << "and where";
  EXPECT_NE(broken.error().message.find(" at byte "), std::string::npos);
}

TEST_F(BatchTest, WhatComesByAPipeIsReadAsOftenAsItIsWanted) {
  const std::string path = folder_ + "/pipe";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_FALSE(can_be_read_again(path));
  EXPECT_FALSE(can_be_read_again("-"));
  std::thread writer([&] {
    std::ofstream(path) << line("a") << "\n\n"
                        << line("b", '"' + std::string(300'000, 'x') + '"') << "\n"
                        << line("c") << "\n"
                        << line("d");
  });
  auto refused = BatchFile::open(path);
  writer.join();
  EXPECT_FALSE(refused) << "line 3 has no object for a body";
  writer = std::thread([&] {
    std::ofstream(path) << line("a") << "\n\n"
                        << line("b", "{\"x\":\"" + std::string(300'000, 'x') + "\"}") << "\n"
                        << line("c");
  });
  auto batch = BatchFile::open(path);
  writer.join();
  ASSERT_TRUE(batch) << batch.error().message;
  ASSERT_EQ(batch->size(), 3U);
  for (const size_t i : {2U, 0U, 1U, 1U}) {
    const auto request = batch->read(i);
    ASSERT_TRUE(request) << request.error().message;
    EXPECT_EQ(request->custom_id, std::string(1, static_cast<char>('a' + i)));
  }
}

TEST_F(BatchTest, AFileThatWasChangedMeanwhileIsNoticed) {
  auto batch = BatchFile::open(write(line("a") + "\n" + line("b")));
  ASSERT_TRUE(batch);
  write(line("b") + "\n" + line("a"));
  EXPECT_FALSE(batch->read(0));
}

TEST_F(BatchTest, TheSameRequestHasTheSameKeyAndAnotherHasAnother) {
  const std::string key = parse_request(line("a"))->key;
  EXPECT_EQ(key.size(), 32U);
  EXPECT_EQ(parse_request(line("a", R"({ "n" : 1 })"))->key, key);
  EXPECT_NE(parse_request(line("b"))->key, key);
  EXPECT_NE(parse_request(line("a", R"({"n":2})"))->key, key);
}

TEST_F(BatchTest, ResultsHaveTheFormOfTheirApi) {
  const BatchRequest request{.custom_id = "a\"", .key = "k"};
  EXPECT_EQ(result_line(request, {200, "job_1", "{\n \"x\": 1 }"}),
            "{\"id\":\"batch_req_k\",\"custom_id\":\"a\\\"\",\"response\":{\"status_code\":200,"
            "\"request_id\":\"job_1\",\"body\":{\"x\":1}},\"error\":null}\n");
  EXPECT_EQ(result_line(request, {502, "", "data: a\n\n"}),
            "{\"id\":\"batch_req_k\",\"custom_id\":\"a\\\"\",\"response\":{\"status_code\":502,"
            "\"request_id\":null,\"body\":\"data: a\\n\\n\"},\"error\":null}\n");
  EXPECT_EQ(error_line(request, "too_large", "no"),
            "{\"id\":\"batch_req_k\",\"custom_id\":\"a\\\"\",\"response\":null,"
            "\"error\":{\"code\":\"too_large\",\"message\":\"no\"}}\n");
}

TEST_F(BatchTest, ResultsOfAnEarlierRunAreKeptButForALineThatWasCutOff) {
  const std::string path = folder_ + "/results";
  const std::string good = result_line({.custom_id = "a", .key = "k"}, {200, "", "{}"});
  const std::string bad = result_line({.custom_id = "b", .key = "k"}, {500, "", "{}"});
  std::ofstream(path) << good << bad << good.substr(0, 30);
  {
    auto results = ResultsFile::open(path);
    ASSERT_TRUE(results) << results.error().message;
    EXPECT_TRUE(results->has("a") && results->succeeded("a"));
    EXPECT_TRUE(results->has("b") && !results->succeeded("b"));
    EXPECT_FALSE(ResultsFile::open(path)) << "somebody has it";
    ASSERT_TRUE(results->append("more\n"));
  }
  EXPECT_EQ(text_of(path), good + bad + "more\n");
  EXPECT_FALSE(ResultsFile::open(path)) << "'more' is no result, and stays what it is";
  EXPECT_EQ(text_of(path), good + bad + "more\n");
}

TEST(EdgeTest, OnlyAnEdgesUrlIsTaken) {
  for (const char* url : {"http://127.0.0.1:8080", "https://edge.example/gpu/"}) {
    EXPECT_TRUE(Edge::open({.url = url})) << url;
  }
  for (const char* url : {"", "127.0.0.1", "ftp://a", "file:///etc/passwd", "http://a/?x=1",
                          "http://a/#x", "http://user:secret@a/"}) {
    EXPECT_FALSE(Edge::open({.url = url})) << url;
  }
}

TEST(EdgeTest, ALocationIsFollowedOnThisEdgeAlone) {
  const auto edge = Edge::open({.url = "http://a:8080/gpu/"});
  ASSERT_TRUE(edge);
  EXPECT_EQ(edge->path_of("/gpu/jobs/1"), "/jobs/1");
  EXPECT_EQ(edge->path_of("http://a:8080/gpu/jobs/1"), "/jobs/1");
  for (const char* elsewhere : {"", "jobs/1", "//b/gpu/1", "http://b/gpu/1", "http://a:80801/gpu/1",
                                "/other/1", "/gpux/1", "http://a:8080@b/gpu/1"}) {
    EXPECT_EQ(edge->path_of(elsewhere), "") << elsewhere;
  }
}

}  // namespace
}  // namespace penstock::ctl
