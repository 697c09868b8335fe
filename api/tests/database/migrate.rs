//! Databases that were made by other versions of the program.

use flatrender_api::platform::migrate;
use sqlx::PgPool;

#[sqlx::test(migrations = "../migrations")]
async fn a_database_of_another_version_is_left_alone_and_told_what_to_do(db: PgPool) {
    let name: String = sqlx::query_scalar("select current_database()::text").fetch_one(&db).await.unwrap();
    let server = std::env::var("DATABASE_URL").unwrap();
    let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
    migrate::run(&url).await.unwrap();
    let others = [
        "update _sqlx_migrations set checksum = sha256('other') where version = 12",
        "update _sqlx_migrations set version = 9999 where version = 12",
    ];
    for other in others {
        sqlx::query(other).execute(&db).await.unwrap();
        let refused = migrate::run(&url).await.unwrap_err().to_string();
        assert!(refused.starts_with("the database was made by another version"), "{refused}");
        assert!(refused.contains("--data") && refused.contains("DATABASE_URL"), "{refused}");
    }
}
