#pragma once

namespace tarn::router {

// page.html.
extern const char kDashboardPage[];

}  // namespace tarn::router
