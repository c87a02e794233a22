// What an application does with java-spiffe, told as one JSON object a line.

import io.grpc.Status;
import io.spiffe.bundle.jwtbundle.JwtBundle;
import io.spiffe.bundle.jwtbundle.JwtBundleSet;
import io.spiffe.bundle.x509bundle.X509BundleSet;
import io.spiffe.svid.jwtsvid.JwtSvid;
import io.spiffe.svid.x509svid.X509Svid;
import io.spiffe.workloadapi.DefaultJwtSource;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.DefaultX509Source;
import io.spiffe.workloadapi.JwtSource;
import io.spiffe.workloadapi.Watcher;
import io.spiffe.workloadapi.WorkloadApiClient;
import io.spiffe.workloadapi.X509Context;
import io.spiffe.workloadapi.X509Source;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

public final class Client {
    static final String AUDIENCE = "clients.test";

    /** Tells what an update is; its failures are told too. */
    interface Teller<T> {
        void tell(T update) throws Exception;
    }

    public static void main(String[] args) throws Exception {
        WorkloadApiClient client = DefaultWorkloadApiClient.newClient();
        client.watchX509Context(watcher("x509", (X509Context context) -> {
            X509Svid svid = context.getDefaultSvid();
            var bundle = context.getX509BundleSet()
                    .getBundleForTrustDomain(svid.getSpiffeId().getTrustDomain());
            tellSvid("watch", svid, bundle.getX509Authorities().size());
        }));
        client.watchX509Bundles(watcher("x509-bundle", (X509BundleSet set) ->
                set.getBundles().forEach((domain, bundle) -> tell("x509-bundle",
                        "domain", domain.getName(),
                        "authorities", bundle.getX509Authorities().size()))));
        client.watchJwtBundles(watcher("jwt-bundle", (JwtBundleSet set) ->
                set.getBundles().forEach((domain, bundle) -> tell("jwt-bundle",
                        "domain", domain.getName(),
                        "kids", new TreeSet<>(bundle.getJwtAuthorities().keySet())))));
        X509Source x509 = DefaultX509Source.newSource();
        JwtSource jwt = DefaultJwtSource.newSource();
        String told = "";
        for (int turn = 0;; turn++) {
            X509Svid svid = x509.getX509Svid();
            int roots = x509.getBundleForTrustDomain(svid.getSpiffeId().getTrustDomain())
                    .getX509Authorities().size();
            String now = serial(svid) + roots;
            if (!now.equals(told)) {
                told = now;
                tellSvid("source", svid, roots);
            }
            if (turn % 3 == 0) {
                try {
                    useJwt(client, jwt);
                } catch (Exception error) {
                    fail("jwt", error);
                }
            }
            Thread.sleep(200);
        }
    }

    /** Fetches a token, has it validated by the Workload API and with the bundle, and for an
     *  audience that it is not for. */
    static void useJwt(WorkloadApiClient client, JwtSource source) throws Exception {
        JwtSvid svid = source.fetchJwtSvid(AUDIENCE);
        tell("jwt", "id", svid.getSpiffeId().toString(), "token", svid.getToken());
        JwtSvid validated = client.validateJwtSvid(svid.getToken(), AUDIENCE);
        tell("validated", "by", "server", "id", validated.getSpiffeId().toString());
        JwtBundle bundle = source.getBundleForTrustDomain(svid.getSpiffeId().getTrustDomain());
        validated = JwtSvid.parseAndValidate(svid.getToken(), bundle, Set.of(AUDIENCE));
        tell("validated", "by", "bundle", "id", validated.getSpiffeId().toString());
        try {
            client.validateJwtSvid(svid.getToken(), "another.test");
            tell("accepted", "audience", "another.test");
        } catch (Exception error) {
            StringBuilder code = new StringBuilder();
            for (String part : Status.fromThrowable(error).getCode().name().split("_")) {
                code.append(part.charAt(0)).append(part.substring(1).toLowerCase());
            }
            tell("refused", "code", code.toString());
        }
    }

    static <T> Watcher<T> watcher(String what, Teller<T> teller) {
        return new Watcher<>() {
            @Override
            public void onUpdate(T update) {
                try {
                    teller.tell(update);
                } catch (Exception error) {
                    fail(what, error);
                }
            }

            @Override
            public void onError(Throwable error) {
                fail(what, error);
            }
        };
    }

    static String serial(X509Svid svid) {
        return svid.getLeaf().getSerialNumber().toString(16);
    }

    static void tellSvid(String by, X509Svid svid, int roots) {
        String id = svid.getSpiffeId().toString();
        tell("x509", "by", by, "id", id, "serial", serial(svid), "roots", roots);
    }

    static void fail(String what, Throwable error) {
        String text = error.toString();
        for (Throwable cause = error.getCause(); cause != null; cause = cause.getCause()) {
            text += ": " + cause;
        }
        tell("error", "what", what, "text", text);
    }

    static void tell(String event, Object... pairs) {
        Map<String, Object> object = new LinkedHashMap<>();
        object.put("event", event);
        for (int n = 0; n < pairs.length; n += 2) {
            object.put((String) pairs[n], pairs[n + 1]);
        }
        // Gson is among grpc-java's own dependencies.
        String line = new com.google.gson.Gson().toJson(object);
        synchronized (System.out) {
            System.out.println(line);
            System.out.flush();
        }
    }
}
