#include "router/dashboard/dashboard.h"

#include <glog/logging.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/http/test_client.h"
#include "common/runtime/real/real_event_loop.h"

namespace tarn::router {
namespace {

using Json = nlohmann::json;

class DashboardTest : public testing::Test {
 protected:
  DashboardTest() {
    AddDashboard(router_, {.loop = &loop_,
                           .status =
                               [this] {
                                 EXPECT_TRUE(loop_.OnLoop());
                                 return status_;
                               },
                           .time_to_first_token = &histogram_});
    auto server = HttpServer::Start({}, [this](HttpRequest request, auto responder) {
      router_.Route(std::move(request), std::move(responder));
    });
    CHECK(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  HttpTestResponse Get(const std::string& path) {
    HttpTestClient client(server_->port());
    return client.Get(path);
  }

  v1::GetStatusResponse status_;
  metrics::Histogram histogram_{{1, 2, 4}};
  HttpRouter router_;
  RealEventLoop loop_{"test"};
  std::unique_ptr<HttpServer> server_;
};

TEST_F(DashboardTest, ThePageNeedsNothingElse) {
  const HttpTestResponse page = Get("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.Header("Content-Type"), "text/html; charset=utf-8");
  EXPECT_NE(page.body.find("</html>"), std::string::npos);
  for (const char* outside : {"http://", "https://", "src=", "href=", "@import", "url("}) {
    EXPECT_EQ(page.body.find(outside), std::string::npos) << outside;
  }
}

TEST_F(DashboardTest, StatusWithoutTraffic) {
  const HttpTestResponse response = Get("/api/status");
  EXPECT_EQ(response.status, 200);
  const Json status = Json::parse(response.body);
  EXPECT_EQ(status.at("requests_total"), "0");
  EXPECT_EQ(status.at("ready"), false);
  EXPECT_TRUE(status.at("nodes").empty());
  EXPECT_EQ(status.at("time_to_first_token").at("count"), 0);
  EXPECT_TRUE(status["time_to_first_token"].at("p99_s").is_null());
}

TEST_F(DashboardTest, StatusWithNodes) {
  auto* node = status_.add_nodes();
  node->mutable_info()->set_node_id("prefill-0");
  node->mutable_info()->set_role(v1::ROLE_PREFILL);
  node->mutable_load()->set_hbm_pages(8);
  status_.set_ready(true);
  for (int i = 0; i < 10; ++i) histogram_.Observe(1.5);
  const Json status = Json::parse(Get("/api/status").body);
  EXPECT_EQ(status.at("nodes").at(0).at("info").at("role"), "ROLE_PREFILL");
  EXPECT_EQ(status["nodes"][0].at("load").at("hbm_pages"), 8);
  EXPECT_EQ(status["nodes"][0]["load"].at("leaked_pages"), 0);
  EXPECT_EQ(status.at("time_to_first_token").at("count"), 10);
  EXPECT_EQ(status["time_to_first_token"].at("p50_s"), 1.5);
}

}  // namespace
}  // namespace tarn::router
